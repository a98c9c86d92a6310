//! Where the parts of a model are among its tensor names, and how each part is stored. Chosen by looking
//! for keys, never by the name of a repository; models read parts and know of no layout.

mod decoder;
mod projector;
mod tower;

use candle_core::{Device, Tensor};
use vlm_catalog::architecture::ModelConfig;

use super::{Checkpoint, CheckpointError, Tensors};
use decoder::Decoder;
pub use decoder::{DecoderLayer, DecoderTensors};
use projector::ProjectorNames;
pub use projector::ProjectorTensors;
use tower::TowerNames;
pub use tower::{NormTensors, TowerLayer, TowerTensors};

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    name: &'static str,
    /// Before `layers.0…`, `norm`.
    text: String,
    decoder: Decoder,
    /// Full name of the output head; `None` when it is tied to the embedding.
    head: Option<String>,
    /// Before `embeddings…`, `encoder…`.
    tower: String,
    tower_names: TowerNames,
    projector: ProjectorNames,
    newline: &'static str,
}

/// What a layout calls its parts; where there are several candidates, the first that is there.
struct Outline {
    name: &'static str,
    /// The key that tells it from the others.
    key: &'static str,
    text: &'static [&'static str],
    heads: &'static [&'static str],
    towers: &'static [(&'static str, TowerNames)],
    projector: ProjectorNames,
    newline: &'static str,
}

const OUTLINES: [Outline; 4] = [
    Outline {
        name: "transformers",
        key: "multi_modal_projector.linear_1.weight",
        text: &["language_model.model."],
        heads: &["language_model.lm_head.weight", "lm_head.weight"],
        towers: &[
            ("vision_tower.vision_model.", TowerNames::Clip),
            ("vision_tower.", TowerNames::Clip),
            ("vision_tower.", TowerNames::InternVit),
        ],
        projector: ProjectorNames::named("multi_modal_projector."),
        newline: "image_newline",
    },
    Outline {
        name: "transformers 4.52 and later",
        key: "model.multi_modal_projector.linear_1.weight",
        text: &["model.language_model.", "model.language_model.model.", "language_model.model."],
        heads: &["lm_head.weight", "language_model.lm_head.weight", "model.language_model.lm_head.weight"],
        towers: &[
            ("model.vision_tower.vision_model.", TowerNames::Clip),
            ("model.vision_tower.", TowerNames::Clip),
            ("model.vision_tower.", TowerNames::InternVit),
        ],
        projector: ProjectorNames::named("model.multi_modal_projector."),
        newline: "model.image_newline",
    },
    Outline {
        name: "original LLaVA",
        key: "model.mm_projector.0.weight",
        text: &["model."],
        heads: &["lm_head.weight"],
        towers: &[("model.vision_tower.vision_tower.vision_model.", TowerNames::Clip)],
        projector: ProjectorNames::sequence("model.mm_projector.", ["0", "2"]),
        newline: "model.image_newline",
    },
    Outline {
        name: "InternVL chat",
        key: "mlp1.0.weight",
        text: &["language_model.model."],
        heads: &["language_model.lm_head.weight", "language_model.output.weight"],
        towers: &[("vision_model.", TowerNames::InternVitChat)],
        projector: ProjectorNames::sequence("mlp1.", ["1", "3"]),
        newline: "",
    },
];

impl Layout {
    /// Finds the layout of the tensors that `has` knows. A part that is missing altogether is looked for under
    /// its first name, so that loading it says which tensor that is.
    pub fn probe(has: impl Fn(&str) -> bool) -> Option<Self> {
        let outline = OUTLINES.iter().find(|outline| has(outline.key))?;
        let text = outline.text.iter().find(|prefix| has(&format!("{prefix}norm.weight"))).or(outline.text.first())?;
        let tower = outline.towers.iter().find(|(prefix, names)| has(&names.key(prefix))).or(outline.towers.first())?;
        Some(Self {
            name: outline.name,
            text: (*text).to_owned(),
            decoder: Decoder::probe(text, &has),
            head: outline.heads.iter().find(|name| has(name)).map(|name| (*name).to_owned()),
            tower: tower.0.to_owned(),
            tower_names: tower.1,
            projector: outline.projector,
            newline: outline.newline,
        })
    }

    /// Which layout it is, for people.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Before the tower's `embeddings…` and `encoder…`.
    pub fn tower(&self) -> &str {
        &self.tower
    }
}

/// A linear layer as it is stored: weights `[out, in]` whose rows follow each other, in one tensor or several, and
/// a bias `[out]` for each of the weights or for none. Nothing is read before it is asked for.
pub struct LinearTensors<'a> {
    at: Tensors<'a>,
    /// Name of each tensor's place, and its rows.
    parts: Vec<(String, usize)>,
    input: usize,
    bias: bool,
    /// Side of a convolution's kernel, whose stored shape is `[out, in ÷ side², side, side]`.
    kernel: Option<usize>,
    /// Where each row is among the stored ones, when that is elsewhere.
    order: Option<Vec<u32>>,
}

impl<'a> LinearTensors<'a> {
    fn new(at: Tensors<'a>, parts: &[(&str, usize)], input: usize, bias: bool) -> Self {
        let parts = parts.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        Self { at, parts, input, bias, kernel: None, order: None }
    }

    /// Rows of all parts together.
    pub fn output(&self) -> usize {
        self.parts.iter().map(|(_, rows)| rows).sum()
    }

    /// Length of a row.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Where [`Self::weights`] are: in main memory, but for weights that are drawn.
    pub fn device(&self) -> &Device {
        self.at.device()
    }

    /// Standard deviation and seed of weights that are to be drawn, and that nobody has to read.
    pub fn drawn(&self) -> Option<(f32, u64)> {
        self.parts.first().and_then(|(name, _)| self.at.at(name).drawn("weight"))
    }

    /// Full names of the weights.
    pub fn names(&self) -> Vec<String> {
        self.parts.iter().map(|(name, _)| self.at.at(name).name("weight")).collect()
    }

    /// The weights in the number format in which they are stored, `[rows, in]` each, one after another: each is
    /// read when the iterator reaches it.
    ///
    /// # Errors
    /// As [`super::Weights::tensor`].
    pub fn weights(&self) -> impl Iterator<Item = Result<Tensor, CheckpointError>> {
        self.parts.iter().map(|(name, rows)| {
            let stored = match self.kernel {
                None => self.at.at(name).stored("weight", &[*rows, self.input])?,
                Some(side) => self
                    .at
                    .at(name)
                    .stored("weight", &[*rows, self.input / (side * side), side, side])?
                    .reshape((*rows, self.input))
                    .map_err(|e| start(&e))?,
            };
            self.ordered(stored)
        })
    }

    /// The biases as one, in f32: `[out]`; `None` when there are none.
    ///
    /// # Errors
    /// As [`super::Weights::tensor`].
    pub fn bias(&self) -> Result<Option<Tensor>, CheckpointError> {
        if !self.bias {
            return Ok(None);
        }
        let read = |(name, rows): &(String, usize)| self.ordered(self.at.at(name).get("bias", &[*rows])?);
        let biases = self.parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Tensor::cat(&biases, 0).map(Some).map_err(|e| start(&e))
    }

    fn ordered(&self, stored: Tensor) -> Result<Tensor, CheckpointError> {
        let Some(order) = &self.order else { return Ok(stored) };
        let order = Tensor::new(order.as_slice(), stored.device()).map_err(|e| start(&e))?;
        stored.index_select(&order, 0).map_err(|e| start(&e))
    }
}

impl Checkpoint {
    /// The decoder's tensors.
    pub fn decoder(&self) -> DecoderTensors<'_> {
        let layout = self.layout();
        let head = layout.head.as_deref();
        DecoderTensors::new(self.weights(), &layout.text, head, layout.decoder, &self.config().text)
    }

    /// The vision tower's tensors.
    pub fn tower(&self) -> TowerTensors<'_> {
        let layout = self.layout();
        TowerTensors::new(self.weights().at(&layout.tower), layout.tower_names, &self.config().vision)
    }

    /// The projector's tensors.
    pub fn projector(&self) -> ProjectorTensors<'_> {
        ProjectorTensors::new(self.weights(), self.layout().projector, self.config())
    }

    /// The row that ends each row of a grid of tiles (LLaVA-1.6): `[width]`.
    ///
    /// # Errors
    /// As [`super::Weights::tensor`].
    pub fn newline(&self) -> Result<Tensor, CheckpointError> {
        let config: &ModelConfig = self.config();
        self.weights().at("").get(self.layout().newline, &[config.text.hidden_size])
    }
}

fn start(error: &candle_core::Error) -> CheckpointError {
    CheckpointError::Start(error.to_string())
}

#[cfg(test)]
mod tests;

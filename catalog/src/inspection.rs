//! What a look at a checkpoint tells whoever plans where it fits: its description and what its tensors weigh as they
//! are stored. It travels as the termination message of a pod, which holds 4096 bytes.

use serde::{Deserialize, Serialize};

use crate::architecture::ModelConfig;
use crate::checkpoint::{Head, Part};

/// A tensor as a header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many axes it has.
    pub axes: usize,
    /// Bytes, as stored.
    pub bytes: u64,
}

/// What is known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The commit, of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The model, without what says nothing of its size and may be long: factors of its rotary positions, the name
    /// of its template and its system message.
    pub config: ModelConfig,
    /// Bytes of all weight files.
    pub weight_bytes: u64,
    /// What the headers tell; absent where the kind of weight files has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
}

/// Bytes of the tensors by part, as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// How many tensors there are.
    pub tensors: u64,
    /// Rows of the vocabulary.
    pub embedding_bytes: u64,
    /// Linear layers of the decoder, without their biases.
    pub decoder_linear_bytes: u64,
    /// Norms and biases of the decoder.
    pub decoder_norm_bytes: u64,
    /// The output head; 0 when it is tied to the embedding.
    pub head_bytes: u64,
    /// The vision tower.
    pub tower_bytes: u64,
    /// The projector.
    pub projector_bytes: u64,
    /// The row that ends each row of a grid of tiles.
    pub newline_bytes: u64,
}

impl Inspection {
    /// Of a model and its tensors.
    pub fn new<'a>(
        config: ModelConfig,
        revision: Option<String>,
        weight_bytes: u64,
        tensors: Option<impl IntoIterator<Item = StoredTensor<'a>>>,
    ) -> Self {
        let mut config = config;
        config.text.long_rope = None;
        config.template = None;
        config.system_message = None;
        Self { revision, config, weight_bytes, stored: tensors.map(Stored::of) }
    }

    /// Where the output head is; `None` when no header tells.
    pub fn head(&self) -> Option<Head> {
        self.stored.map(|stored| if stored.head_bytes > 0 { Head::Stored } else { Head::Tied })
    }
}

impl Stored {
    fn of<'a>(tensors: impl IntoIterator<Item = StoredTensor<'a>>) -> Self {
        let mut sums = Self::default();
        for tensor in tensors {
            sums.tensors += 1;
            *sums.sum(part(&tensor)) += tensor.bytes;
        }
        sums
    }

    fn sum(&mut self, part: Part) -> &mut u64 {
        match part {
            Part::Embedding => &mut self.embedding_bytes,
            Part::DecoderLinear => &mut self.decoder_linear_bytes,
            Part::DecoderNorm => &mut self.decoder_norm_bytes,
            Part::Head => &mut self.head_bytes,
            Part::Tower => &mut self.tower_bytes,
            Part::Projector => &mut self.projector_bytes,
            Part::Newline => &mut self.newline_bytes,
        }
    }
}

/// The part of a tensor, by the names of every layout in which checkpoints are published. What has no name of its
/// own belongs to the decoder.
pub fn part(tensor: &StoredTensor<'_>) -> Part {
    let name = tensor.name.strip_prefix("model.").unwrap_or(tensor.name);
    if name.starts_with("vision_tower.") || name.starts_with("vision_model.") {
        Part::Tower
    } else if ["multi_modal_projector.", "mm_projector.", "mlp1."].iter().any(|prefix| name.starts_with(prefix)) {
        Part::Projector
    } else if name == "image_newline" {
        Part::Newline
    } else if name.ends_with("embed_tokens.weight") || name.ends_with("tok_embeddings.weight") {
        Part::Embedding
    } else if name.ends_with("lm_head.weight") || name == "language_model.output.weight" {
        Part::Head
    } else if tensor.axes > 1 {
        Part::DecoderLinear
    } else {
        Part::DecoderNorm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_s_names_find_their_parts() {
        let of = |name, axes| part(&StoredTensor { name, axes, bytes: 1 });
        for (names, axes, expected) in [
            (
                &[
                    "vision_tower.vision_model.embeddings.class_embedding",
                    "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                    "model.vision_tower.encoder.layer.0.attention.q_proj.weight",
                    "vision_model.encoder.layers.0.ls1",
                ][..],
                2,
                Part::Tower,
            ),
            (
                &[
                    "multi_modal_projector.linear_1.weight",
                    "model.multi_modal_projector.linear_2.bias",
                    "model.mm_projector.0.weight",
                    "mlp1.3.weight",
                ],
                2,
                Part::Projector,
            ),
            (&["image_newline", "model.image_newline"], 1, Part::Newline),
            (
                &[
                    "language_model.model.embed_tokens.weight",
                    "model.embed_tokens.weight",
                    "language_model.model.tok_embeddings.weight",
                ],
                2,
                Part::Embedding,
            ),
            (
                &[
                    "lm_head.weight",
                    "language_model.lm_head.weight",
                    "model.language_model.lm_head.weight",
                    "language_model.output.weight",
                ],
                2,
                Part::Head,
            ),
            (
                &[
                    "language_model.model.layers.0.self_attn.q_proj.weight",
                    "language_model.model.layers.0.attention.wqkv.weight",
                    "model.layers.39.mlp.down_proj.weight",
                    "model.language_model.layers.0.mlp.gate_proj.weight",
                ],
                2,
                Part::DecoderLinear,
            ),
            (
                &[
                    "model.norm.weight",
                    "language_model.model.layers.0.input_layernorm.weight",
                    "model.language_model.layers.0.self_attn.q_proj.bias",
                ],
                1,
                Part::DecoderNorm,
            ),
        ] {
            for name in names {
                assert_eq!(of(name, axes), expected, "{name}");
            }
        }
    }
}

//! The vision tower's tensors: CLIP under its one naming, InternViT under two.

use candle_core::Tensor;
use vlm_catalog::architecture::{Tower, VisionConfig};

use super::super::{CheckpointError, Tensors};
use super::{LinearTensors, start};

/// What a tower's tensors are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TowerNames {
    /// CLIP, everywhere.
    Clip,
    /// InternViT in the transformers library.
    InternVit,
    /// InternViT in OpenGVLab's own code, which stores queries, keys and values in one tensor.
    InternVitChat,
}

impl TowerNames {
    /// A tensor that is there only under these names.
    pub fn key(self, prefix: &str) -> String {
        format!("{prefix}embeddings.{}", self.pick("class_embedding", "cls_token", "class_embedding"))
    }

    fn pick<'a>(self, clip: &'a str, intern_vit: &'a str, chat: &'a str) -> &'a str {
        match self {
            Self::Clip => clip,
            Self::InternVit => intern_vit,
            Self::InternVitChat => chat,
        }
    }
}

/// A norm's tensors, `[width]` each; root-mean-square norms have no bias.
pub struct NormTensors {
    /// Weight.
    pub weight: Tensor,
    /// Bias.
    pub bias: Option<Tensor>,
}

impl NormTensors {
    pub(super) fn read(at: &Tensors<'_>, width: usize, bias: bool) -> Result<Self, CheckpointError> {
        let bias = bias.then(|| at.get("bias", &[width])).transpose()?;
        Ok(Self { weight: at.get("weight", &[width])?, bias })
    }
}

/// Tensors of a vision tower.
pub struct TowerTensors<'a> {
    at: Tensors<'a>,
    names: TowerNames,
    config: &'a VisionConfig,
}

impl<'a> TowerTensors<'a> {
    pub(super) fn new(at: Tensors<'a>, names: TowerNames, config: &'a VisionConfig) -> Self {
        Self { at, names, config }
    }

    /// What the tower is.
    pub fn config(&self) -> &'a VisionConfig {
        self.config
    }

    /// From the pixels of a patch, channel by channel, to its row: `[width, 3 · patch · patch]`.
    pub fn patches(&self) -> LinearTensors<'a> {
        let (width, patch) = (self.config.hidden_size, self.config.patch_size);
        let chat = "patch_embedding";
        let parts = [(self.names.pick(chat, "patch_embeddings.projection", chat), width)];
        let bias = self.names != TowerNames::Clip;
        LinearTensors {
            kernel: Some(patch),
            ..LinearTensors::new(self.at.at("embeddings"), &parts, 3 * patch * patch, bias)
        }
    }

    /// The class token's row: `[1, 1, width]`.
    ///
    /// # Errors
    /// As [`super::super::Weights::tensor`]; so have all that give tensors.
    pub fn class(&self) -> Result<Tensor, CheckpointError> {
        let width = self.config.hidden_size;
        let at = self.at.at("embeddings");
        match self.names {
            TowerNames::Clip => at.get("class_embedding", &[width])?.reshape((1, 1, width)).map_err(|e| start(&e)),
            TowerNames::InternVit => at.get("cls_token", &[1, 1, width]),
            TowerNames::InternVitChat => at.get("class_embedding", &[1, 1, width]),
        }
    }

    /// Positions of the class token and all patches: `[rows, width]`.
    pub fn positions(&self) -> Result<Tensor, CheckpointError> {
        let (rows, width) = (self.config.grid() * self.config.grid() + 1, self.config.hidden_size);
        let at = self.at.at("embeddings");
        match self.names {
            TowerNames::Clip => at.get("position_embedding.weight", &[rows, width]),
            TowerNames::InternVit => {
                at.get("position_embeddings", &[1, rows, width])?.squeeze(0).map_err(|e| start(&e))
            }
            TowerNames::InternVitChat => {
                at.get("position_embedding", &[1, rows, width])?.squeeze(0).map_err(|e| start(&e))
            }
        }
    }

    /// The norm behind the stem (CLIP; the name is spelt like this in every file).
    pub fn pre_norm(&self) -> Result<NormTensors, CheckpointError> {
        NormTensors::read(&self.at.at("pre_layrnorm"), self.config.hidden_size, true)
    }

    /// Layer `n`.
    pub fn layer(&self, n: usize) -> TowerLayer<'a> {
        let at = self.at.at("encoder").at(self.names.pick("layers", "layer", "layers")).at(n);
        TowerLayer { at, names: self.names, config: self.config }
    }
}

/// Tensors of one layer.
pub struct TowerLayer<'a> {
    at: Tensors<'a>,
    names: TowerNames,
    config: &'a VisionConfig,
}

impl<'a> TowerLayer<'a> {
    /// The norms before attention and before the layer between.
    pub fn norms(&self) -> Result<[NormTensors; 2], CheckpointError> {
        let bias = !matches!(self.config.tower, Tower::InternVit { rms_norm: true, .. });
        let read = |name| NormTensors::read(&self.at.at(name), self.config.hidden_size, bias);
        Ok([
            read(self.names.pick("layer_norm1", "layernorm_before", "norm1"))?,
            read(self.names.pick("layer_norm2", "layernorm_after", "norm2"))?,
        ])
    }

    /// Rows of queries, then keys, then values: `[3 · width, width]`.
    pub fn qkv(&self) -> LinearTensors<'a> {
        let width = self.config.hidden_size;
        let bias = !matches!(self.config.tower, Tower::InternVit { qkv_bias: false, .. });
        let split = [("q_proj", width), ("k_proj", width), ("v_proj", width)];
        let names: &[_] = if self.names == TowerNames::InternVitChat { &[("qkv", 3 * width)] } else { &split };
        LinearTensors::new(self.attention(), names, width, bias)
    }

    /// Weights of the norms of queries and keys: `[width]` each, over all heads.
    pub fn qk_norms(&self) -> Result<[Tensor; 2], CheckpointError> {
        let read = |name| self.attention().at(name).get("weight", &[self.config.hidden_size]);
        Ok([read("q_norm")?, read("k_norm")?])
    }

    /// Attention's way out: `[width, width]`.
    pub fn out(&self) -> LinearTensors<'a> {
        let name = self.names.pick("out_proj", "projection_layer", "proj");
        let width = self.config.hidden_size;
        LinearTensors::new(self.attention(), &[(name, width)], width, true)
    }

    /// Into the layer between: `[inner, width]`.
    pub fn fc1(&self) -> LinearTensors<'a> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        LinearTensors::new(self.at.at("mlp"), &[("fc1", inner)], width, true)
    }

    /// Out of it: `[width, inner]`.
    pub fn fc2(&self) -> LinearTensors<'a> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        LinearTensors::new(self.at.at("mlp"), &[("fc2", width)], inner, true)
    }

    /// Scales of what attention and the layer between add (InternViT): `[width]` each.
    pub fn scales(&self) -> Result<[Tensor; 2], CheckpointError> {
        let [first, second] =
            if self.names == TowerNames::InternVitChat { ["ls1", "ls2"] } else { ["lambda_1", "lambda_2"] };
        let read = |name| self.at.get(name, &[self.config.hidden_size]);
        Ok([read(first)?, read(second)?])
    }

    fn attention(&self) -> Tensors<'a> {
        self.at.at(self.names.pick("self_attn", "attention", "attn"))
    }
}

//! What a `config.json` says, as one validated description: every number has been bounded, so
//! later code multiplies and divides without looking again. The file as written is in [`raw`].

mod describe;
mod largest_image;
pub mod raw;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kv_cache::KvCacheDtype;

pub use describe::{FoundTower, TowerShapes, describe, describe_tower, tower_from_tensors};

/// A vision-language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Which family.
    pub family: Family,
    /// Whose conventions the files follow.
    pub dialect: Dialect,
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// What joins them.
    pub projector: ProjectorConfig,
    /// How pictures are cut.
    pub tiling: Tiling,
    /// Id of the token that stands for one row of visual features; `None` when the configuration does not
    /// say, and the tokenizer resolves it by its string.
    pub image_token_id: Option<u32>,
    /// Name of the conversation template, when the configuration names one.
    pub template: Option<String>,
    /// Text in the place of the template's own system text.
    pub system_message: Option<String>,
    /// Number format of the stored weights, as the file names it.
    pub stored_dtype: Option<String>,
}

/// Families of vision-language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// LLaVA-1.5: CLIP, a two-layer projector, one tile an image.
    Llava,
    /// LLaVA-1.6: LLaVA with a grid of tiles beside the whole picture, and a newline embedding.
    LlavaNext,
    /// InternVL 2, 2.5 and 3: InternViT, pixel shuffle, a normalised projector, a grid of tiles.
    InternVl,
}

impl Family {
    /// The name that people know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llava => "LLaVA-1.5",
            Self::LlavaNext => "LLaVA-1.6",
            Self::InternVl => "InternVL",
        }
    }
}

/// Whose conventions of file names, keys, preprocessing and prompts a checkpoint follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// The transformers library's own classes (llava-hf, InternVL "-hf").
    Transformers,
    /// The original repositories: those of LLaVA and of InternVL chat.
    Original,
}

/// How a family cuts a picture into square tiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Tiling {
    /// One tile, padded to a square or cropped; `None` leaves it to `preprocessor_config.json`.
    One {
        /// Whether to pad (`Some(true)`) or crop.
        pad: Option<bool>,
    },
    /// The whole picture first, then the tiles of the grid that wastes least (LLaVA-1.6).
    AnyRes {
        /// Candidate sizes as (height, width) in pixels, in the order in which they win ties.
        pinpoints: Vec<(u32, u32)>,
    },
    /// The tiles of the grid of the closest aspect ratio, then the whole picture (InternVL).
    Dynamic {
        /// Fewest tiles of the grid.
        min: u32,
        /// Most tiles of the grid.
        max: u32,
        /// Whether the whole picture follows more than one tile.
        thumbnail: bool,
    },
}

/// A decoder of the Llama kind: RMS norms, rotary positions, gated `SiLU`, grouped queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Factors on the rotary frequencies, for long sequences.
    pub long_rope: Option<LongRope>,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Longest sequence.
    pub max_positions: usize,
    /// Whether query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Ids that end a text.
    pub eos_token_ids: Vec<u32>,
}

impl TextConfig {
    /// Bytes of keys and values that one token keeps, at `element_bytes` a number.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> u64 {
        KvCacheDtype::Auto.bytes_per_token(self, element_bytes)
    }
}

/// Rotary factors of Phi-3 ("su", later "longrope"): inverse frequencies are divided by a factor each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LongRope {
    /// Factors of sequences up to `original_positions`; half a head's width.
    pub short: Vec<f64>,
    /// Factors of longer sequences.
    pub long: Vec<f64>,
    /// Longest sequence of the model before its extension.
    pub original_positions: usize,
    /// On cosine and sine, at every length.
    pub attention_factor: f64,
}

/// Kinds of vision towers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tower {
    /// CLIP: a norm behind the stem, layer norms, biases everywhere.
    Clip,
    /// InternViT: layer scales, no norm behind the stem or at the end.
    InternVit {
        /// RMS norms in the place of layer norms.
        rms_norm: bool,
        /// RMS norms over all heads of queries and keys.
        qk_norm: bool,
        /// Biases of query, key and value projections.
        qkv_bias: bool,
    },
}

/// A vision tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Which kind.
    pub tower: Tower,
    /// Width.
    pub hidden_size: usize,
    /// Width of the layer between.
    pub intermediate_size: usize,
    /// Layers stored.
    pub layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Activation of the layer between.
    pub activation: Activation,
    /// Layers to run: the features are the output of the last of them.
    pub layers_used: usize,
    /// Whether the class token is dropped from the features.
    pub drop_class_token: bool,
    /// Squares of this many patches a side are joined into one row (InternVL: 2); 1 joins none.
    pub shuffle: usize,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows of the decoder that one tile gives.
    pub fn tokens_per_tile(&self) -> usize {
        let side = self.grid() / self.shuffle;
        side * side + usize::from(!self.drop_class_token)
    }
}

/// Two linear layers with an activation between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectorConfig {
    /// Whether a layer norm (epsilon 1e-5) stands before the layers (InternVL).
    pub norm: bool,
    /// Between the layers.
    pub activation: Activation,
    /// Whether the layers have a bias.
    pub bias: bool,
}

/// Activation functions of towers and projectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// GELU by the error function.
    Gelu,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
}

/// Why a configuration cannot be served; without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchitectureError {
    /// A model or a feature that is not served.
    Unsupported {
        /// What the file says.
        what: String,
        /// What is served instead.
        supported: &'static str,
    },
    /// A field has a value that makes no model.
    Invalid {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A tensor of the vision tower has a shape that makes no tower.
    Tensor {
        /// Its name within the tower.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What it must be.
        expected: String,
    },
}

impl fmt::Display for ArchitectureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { what, supported } => {
                write!(f, "config.json asks for {what}, which is not supported (supported: {supported})")
            }
            Self::Invalid { field, value, expected } => {
                write!(f, "config.json: {field} is {value}, but must be {expected}")
            }
            Self::Tensor { name, shape, expected } => {
                write!(f, "the vision tower's {name} has the shape {shape:?}, but must be {expected}")
            }
        }
    }
}

impl std::error::Error for ArchitectureError {}

#[cfg(test)]
mod tests;

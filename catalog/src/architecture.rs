//! What a `config.json` says, as one validated description: every number has been bounded, so
//! later code multiplies and divides without looking again. The file as written is in [`raw`].

mod describe;
pub mod raw;

use std::fmt;

pub use describe::describe;

/// A vision-language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which family.
    pub family: Family,
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// What joins them.
    pub projector: ProjectorConfig,
    /// Id of the token that stands for one row of visual features.
    pub image_token_id: u32,
    /// Number format of the stored weights, as the file names it.
    pub stored_dtype: Option<String>,
}

/// Families of vision-language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// LLaVA-1.5: CLIP, a two-layer projector, one tile an image.
    Llava,
}

/// A decoder of the Llama kind: RMS norms, rotary positions, gated `SiLU`, grouped queries.
#[derive(Clone, Debug, PartialEq)]
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
        2 * self.layers as u64 * self.kv_heads as u64 * self.head_dim as u64 * element_bytes as u64
    }
}

/// A CLIP vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
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
}

impl VisionConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows of features that one tile gives.
    pub fn tokens_per_tile(&self) -> usize {
        self.grid() * self.grid() + usize::from(!self.drop_class_token)
    }
}

/// Two linear layers with an activation between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectorConfig {
    /// Between the layers.
    pub activation: Activation,
    /// Whether the layers have a bias.
    pub bias: bool,
}

/// Activation functions of towers and projectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        }
    }
}

impl std::error::Error for ArchitectureError {}

#[cfg(test)]
mod tests;

//! `config.json` as hubs and libraries write it: every field optional, every known spelling.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawConfig {
    /// Class names.
    pub architectures: Option<Vec<String>>,
    /// Family.
    pub model_type: Option<String>,
    /// The decoder.
    pub text_config: Option<RawText>,
    /// The vision tower.
    pub vision_config: Option<RawVision>,
    /// Older name of the image token's id.
    pub image_token_index: Option<i64>,
    /// Newer name of the image token's id.
    pub image_token_id: Option<i64>,
    /// Which layer's output is taken, negative from the end.
    pub vision_feature_layer: Option<OneOrMany>,
    /// `default` drops the class token, `full` keeps it.
    pub vision_feature_select_strategy: Option<String>,
    /// Activation of the projector.
    pub projector_hidden_act: Option<String>,
    /// Whether the projector has biases.
    pub multimodal_projector_bias: Option<bool>,
    /// Older name of the stored number format.
    pub torch_dtype: Option<String>,
    /// Newer name of the stored number format.
    pub dtype: Option<String>,
    /// Present when the weights were quantised before.
    pub quantization_config: Option<IgnoredAny>,
    /// Ids that end a text.
    pub eos_token_id: Option<OneOrMany>,
    /// Name of the vision tower's own repository (original LLaVA).
    pub mm_vision_tower: Option<String>,
}

/// The decoder's part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawText {
    /// Family of the decoder.
    pub model_type: Option<String>,
    /// Rows of the embedding.
    pub vocab_size: Option<i64>,
    /// Width.
    pub hidden_size: Option<i64>,
    /// Width of the gated layer.
    pub intermediate_size: Option<i64>,
    /// Layers.
    pub num_hidden_layers: Option<i64>,
    /// Query heads.
    pub num_attention_heads: Option<i64>,
    /// Key and value heads.
    pub num_key_value_heads: Option<i64>,
    /// Width of a head.
    pub head_dim: Option<i64>,
    /// Activation of the gate.
    pub hidden_act: Option<String>,
    /// Longest sequence.
    pub max_position_embeddings: Option<i64>,
    /// Epsilon of the norms.
    pub rms_norm_eps: Option<f64>,
    /// Older place of the rotary base.
    pub rope_theta: Option<f64>,
    /// Older place of rotary scaling.
    pub rope_scaling: Option<RawRope>,
    /// Newer place of both.
    pub rope_parameters: Option<RawRope>,
    /// Biases in attention.
    pub attention_bias: Option<bool>,
    /// Biases in the gated layer.
    pub mlp_bias: Option<bool>,
    /// Window of attention.
    pub sliding_window: Option<i64>,
    /// Whether the window applies.
    pub use_sliding_window: Option<bool>,
    /// Ids that end a text.
    pub eos_token_id: Option<OneOrMany>,
}

/// Rotary parameters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawRope {
    /// Base.
    pub rope_theta: Option<f64>,
    /// Newer name of the kind.
    pub rope_type: Option<String>,
    /// Older name of the kind.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// The vision tower's part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawVision {
    /// Family of the tower.
    pub model_type: Option<String>,
    /// Width.
    pub hidden_size: Option<i64>,
    /// Width of the layer between.
    pub intermediate_size: Option<i64>,
    /// Layers.
    pub num_hidden_layers: Option<i64>,
    /// Heads.
    pub num_attention_heads: Option<i64>,
    /// Colour channels.
    pub num_channels: Option<i64>,
    /// Side of the input.
    pub image_size: Option<OneOrMany>,
    /// Side of a patch.
    pub patch_size: Option<OneOrMany>,
    /// Epsilon of the norms.
    pub layer_norm_eps: Option<f64>,
    /// Activation.
    pub hidden_act: Option<String>,
}

/// A number, or several: `336` and `[336, 336]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A plain number.
    One(i64),
    /// A list.
    Many(Vec<i64>),
}

impl OneOrMany {
    /// The numbers as a slice.
    pub fn values(&self) -> &[i64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

//! `config.json` as hubs and libraries write it: every field optional, every known spelling.

mod values;

use serde::Deserialize;

pub use values::{Nullable, OneOrMany, RawPinpoints, RawQuantization};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawConfig {
    /// Class names.
    pub architectures: Option<Vec<String>>,
    /// Family.
    pub model_type: Option<String>,
    /// The decoder, in the transformers library's own classes.
    pub text_config: Option<RawText>,
    /// The decoder of InternVL chat.
    pub llm_config: Option<RawText>,
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
    /// Sizes of grids: (height, width) in the transformers library, (width, height) in the original LLaVA.
    pub image_grid_pinpoints: Option<RawPinpoints>,
    /// Rows of the decoder that one tile gives (InternVL).
    pub image_seq_length: Option<i64>,
    /// One over the side of the squares of patches that are joined (InternVL).
    pub downsample_ratio: Option<f64>,
    /// Side of a tile (InternVL chat).
    pub force_image_size: Option<i64>,
    /// Whether pictures are cut into several tiles (InternVL chat).
    pub dynamic_image_size: Option<bool>,
    /// Whether the whole picture follows its tiles (InternVL chat).
    pub use_thumbnail: Option<bool>,
    /// Fewest tiles (InternVL chat).
    pub min_dynamic_patch: Option<i64>,
    /// Most tiles (InternVL chat).
    pub max_dynamic_patch: Option<i64>,
    /// Order of the rows behind the joining of patches (InternVL chat).
    pub ps_version: Option<String>,
    /// Which layer's output is taken (InternVL chat).
    pub select_layer: Option<i64>,
    /// Conversation template (InternVL chat).
    pub template: Option<String>,
    /// Text in the place of the template's own system text (InternVL chat).
    pub system_message: Option<String>,
    /// Whether pictures are padded to a square (InternVL chat).
    pub pad2square: Option<bool>,
    /// Rank of the adapters in the tower (InternVL chat); 0 for none.
    pub use_backbone_lora: Option<i64>,
    /// Rank of the adapters in the decoder (InternVL chat); 0 for none.
    pub use_llm_lora: Option<i64>,
    /// Repository or directory of the vision tower (original LLaVA).
    pub mm_vision_tower: Option<String>,
    /// Kind of the projector (original LLaVA).
    pub mm_projector_type: Option<String>,
    /// Which layer's output is taken (original LLaVA).
    pub mm_vision_select_layer: Option<i64>,
    /// `patch` drops the class token, `cls_patch` keeps it (original LLaVA).
    pub mm_vision_select_feature: Option<String>,
    /// How the rows of several tiles are put together (original LLaVA).
    pub mm_patch_merge_type: Option<String>,
    /// How pictures become square (original LLaVA).
    pub image_aspect_ratio: Option<String>,
    /// Whether the tower sees several scales of a picture (original LLaVA).
    pub s2: Option<bool>,
    /// Whether tokens of their own stand before and behind a picture (original LLaVA).
    pub mm_use_im_start_end: Option<bool>,
    /// Older name of the stored number format.
    pub torch_dtype: Option<String>,
    /// Newer name of the stored number format.
    pub dtype: Option<String>,
    /// Present when the weights were quantised before.
    pub quantization_config: Option<RawQuantization>,
    /// Ids that end a text.
    pub eos_token_id: Option<OneOrMany>,

    // The decoder of the original LLaVA has no part of its own.
    /// As in [`RawText`]; so are all that follow.
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
    pub sliding_window: Nullable<i64>,
}

impl RawConfig {
    /// The decoder where the file has no part for it (original LLaVA).
    pub fn own_text(&self) -> RawText {
        RawText {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            hidden_act: self.hidden_act.clone(),
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            rope_scaling: self.rope_scaling.clone(),
            rope_parameters: self.rope_parameters.clone(),
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            sliding_window: self.sliding_window,
            ..RawText::default()
        }
    }
}

/// The decoder's part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawText {
    /// Class names.
    pub architectures: Option<Vec<String>>,
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
    /// Longest sequence before the extension (Phi-3).
    pub original_max_position_embeddings: Option<i64>,
    /// Epsilon of the norms.
    pub rms_norm_eps: Option<f64>,
    /// Older place of the rotary base.
    pub rope_theta: Option<f64>,
    /// Older place of rotary scaling.
    pub rope_scaling: Option<RawRope>,
    /// Newer place of both.
    pub rope_parameters: Option<RawRope>,
    /// Share of a head's width that is rotated.
    pub partial_rotary_factor: Option<f64>,
    /// Biases in attention.
    pub attention_bias: Option<bool>,
    /// Biases in attention (InternLM2), and in the gated layer too (`InternLM3`).
    pub bias: Option<bool>,
    /// Biases of queries, keys and values (`InternLM3`).
    pub qkv_bias: Option<bool>,
    /// Biases in the gated layer.
    pub mlp_bias: Option<bool>,
    /// Window of attention.
    pub sliding_window: Nullable<i64>,
    /// Whether the window applies (Qwen2).
    pub use_sliding_window: Option<bool>,
    /// Older name of the stored number format.
    pub torch_dtype: Option<String>,
    /// Newer name of the stored number format.
    pub dtype: Option<String>,
    /// Present when the weights were quantised before.
    pub quantization_config: Option<RawQuantization>,
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
    /// Factors of short sequences.
    pub short_factor: Option<Vec<f64>>,
    /// Factors of long sequences.
    pub long_factor: Option<Vec<f64>>,
    /// On cosine and sine.
    pub attention_factor: Option<f64>,
    /// Newer place of the longest sequence before the extension.
    pub original_max_position_embeddings: Option<i64>,
    /// Newer place of the share of a head's width that is rotated.
    pub partial_rotary_factor: Option<f64>,
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
    /// Kind of the norms (InternViT).
    pub norm_type: Option<String>,
    /// Norms of queries and keys (InternViT of InternVL chat).
    pub qk_normalization: Option<bool>,
    /// Norms of queries and keys (InternViT of the transformers library).
    pub use_qk_norm: Option<bool>,
    /// Biases of queries, keys and values (InternViT of InternVL chat).
    pub qkv_bias: Option<bool>,
    /// Biases of queries, keys and values (InternViT of the transformers library).
    pub attention_bias: Option<bool>,
    /// Whether there are position embeddings (InternViT of the transformers library).
    pub use_absolute_position_embeddings: Option<bool>,
    /// Whether there is no norm at the end (InternViT of the transformers library).
    pub use_mean_pooling: Option<bool>,
    /// Present when the weights were quantised before.
    pub quantization_config: Option<RawQuantization>,
}

/// `config.json` of a vision tower's own repository: of a whole CLIP model, or of its tower alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawTower {
    /// The tower's part of a whole CLIP model.
    pub vision_config: Option<RawVision>,
    /// The tower alone.
    #[serde(flatten)]
    pub alone: RawVision,
}

impl RawTower {
    /// The tower's fields.
    pub fn vision(&self) -> &RawVision {
        self.vision_config.as_ref().unwrap_or(&self.alone)
    }
}

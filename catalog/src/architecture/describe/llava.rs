//! LLaVA-1.5 and 1.6 as the transformers library writes them.

use super::super::raw::{OneOrMany, RawConfig, RawVision};
use super::super::{ArchitectureError, Dialect, Family, ModelConfig, ProjectorConfig, Tiling};
use super::fields::{Fields, unsupported};
use super::pinpoints::{self, Order};
use super::text::Decoder;
use super::vision::{self, Features};
use super::{image_token, stored_dtype, transformers_text};

/// The model of `raw`, which is of `family`.
pub fn describe(raw: &RawConfig, family: Family) -> Result<ModelConfig, ArchitectureError> {
    let text = transformers_text(raw, Decoder::Llama)?;
    let features = Features {
        field: "vision_feature_layer",
        layer: feature_layer(raw, -2)?,
        drop_class_token: vision::drops_class_token(
            "vision_feature_select_strategy",
            raw.vision_feature_select_strategy.as_deref(),
        )?,
        shuffle: 1,
    };
    let tiling = if family == Family::LlavaNext {
        if !features.drop_class_token {
            return Err(unsupported(
                "a class token among the rows of a grid (vision_feature_select_strategy)",
                "default",
            ));
        }
        Tiling::AnyRes { pinpoints: pinpoints::read(raw.image_grid_pinpoints.as_ref(), Order::HeightWidth)? }
    } else {
        Tiling::One { pad: None }
    };
    let at = Fields { prefix: "" };
    Ok(ModelConfig {
        family,
        dialect: Dialect::Transformers,
        tiling,
        template: None,
        system_message: None,
        image_token_id: Some(image_token(raw, 32_000, text.vocab_size)?),
        projector: ProjectorConfig {
            norm: false,
            activation: at.activation("projector_hidden_act", raw.projector_hidden_act.as_deref(), "gelu")?,
            bias: raw.multimodal_projector_bias.unwrap_or(true),
        },
        stored_dtype: stored_dtype(raw),
        vision: vision::clip(raw.vision_config.as_ref().unwrap_or(&RawVision::default()), &features)?,
        text,
    })
}

/// The one layer that `vision_feature_layer` names.
pub fn feature_layer(raw: &RawConfig, default: i64) -> Result<i64, ArchitectureError> {
    match raw.vision_feature_layer.as_ref().map(OneOrMany::values) {
        None => Ok(default),
        Some([layer]) => Ok(*layer),
        Some(other) => Err(unsupported(&format!("{} layers (vision_feature_layer)", other.len()), "one layer")),
    }
}

//! LLaVA-1.5 and 1.6 as their own repository writes them: the decoder's fields lie beside those of the model,
//! and nothing is said of the vision tower but its name.

use super::super::raw::{RawConfig, RawVision};
use super::super::{Activation, ArchitectureError, Dialect, Family, ModelConfig, ProjectorConfig, Tiling};
use super::fields::{Fields, unsupported};
use super::pinpoints::{self, Order};
use super::stored_dtype;
use super::text::{self, Decoder};
use super::vision::{self, Features};

/// The model of `raw`. The tower is taken for the CLIP ViT-L/14 at 336 pixels of every published checkpoint,
/// until [`super::tower::from_tensors`] has looked at its weights.
pub fn describe(raw: &RawConfig, decoder: Decoder) -> Result<ModelConfig, ArchitectureError> {
    let at = Fields { prefix: "" };
    at.unset("s2", raw.s2, "false")?;
    at.unset("mm_use_im_start_end", raw.mm_use_im_start_end, "false")?;
    match raw.mm_projector_type.as_deref() {
        Some("mlp2x_gelu") => {}
        other => {
            let name = other.unwrap_or("linear");
            return Err(unsupported(&format!("the projector {name:?} (mm_projector_type)"), "mlp2x_gelu"));
        }
    }
    let features = features(raw)?;
    let tiling = tiling(raw, &features)?;
    Ok(ModelConfig {
        family: if matches!(tiling, Tiling::AnyRes { .. }) { Family::LlavaNext } else { Family::Llava },
        dialect: Dialect::Original,
        tiling,
        template: None,
        system_message: None,
        image_token_id: None,
        projector: ProjectorConfig { norm: false, activation: Activation::Gelu, bias: true },
        stored_dtype: stored_dtype(raw),
        vision: vision::clip(raw.vision_config.as_ref().unwrap_or(&RawVision::default()), &features)?,
        text: text::describe(&raw.own_text(), decoder, at, raw.eos_token_id.as_ref())?,
    })
}

/// What the original LLaVA takes from its tower.
pub fn features(raw: &RawConfig) -> Result<Features, ArchitectureError> {
    Ok(Features {
        field: "mm_vision_select_layer",
        layer: raw.mm_vision_select_layer.unwrap_or(-2),
        drop_class_token: vision::drops_class_token(
            "mm_vision_select_feature",
            raw.mm_vision_select_feature.as_deref(),
        )?,
        shuffle: 1,
    })
}

fn tiling(raw: &RawConfig, features: &Features) -> Result<Tiling, ArchitectureError> {
    match raw.image_aspect_ratio.as_deref() {
        Some("pad") => Ok(Tiling::One { pad: Some(true) }),
        Some("anyres") => {
            let merge = raw.mm_patch_merge_type.as_deref().unwrap_or("flat");
            if merge != "spatial_unpad" {
                return Err(unsupported(&format!("the merging {merge:?} (mm_patch_merge_type)"), "spatial_unpad"));
            }
            if !features.drop_class_token {
                return Err(unsupported("a class token among the rows of a grid (mm_vision_select_feature)", "patch"));
            }
            Ok(Tiling::AnyRes { pinpoints: pinpoints::read(raw.image_grid_pinpoints.as_ref(), Order::WidthHeight)? })
        }
        // The reference takes the middle of the picture whatever else is said.
        None | Some("square" | "crop") => Ok(Tiling::One { pad: Some(false) }),
        Some(other) => Err(unsupported(&format!("{other:?} (image_aspect_ratio)"), "anyres, crop, pad, square")),
    }
}

//! InternVL 2, 2.5 and 3: as the transformers library writes them, and as OpenGVLab's own chat repositories do.

use super::super::raw::{RawConfig, RawText, RawVision};
use super::super::{Activation, ArchitectureError, Dialect, Family, ModelConfig, ProjectorConfig, Tiling};
use super::fields::{Fields, bounded, invalid, unsupported};
use super::llava::feature_layer;
use super::text::{self, Decoder};
use super::vision::{self, Features};
use super::{image_token, stored_dtype, transformers_text};

const TOP: Fields = Fields { prefix: "" };

/// The model of `raw` in the transformers library's convention. How pictures are cut is in the preprocessor's
/// file; what is given here is its default.
pub fn describe(raw: &RawConfig) -> Result<ModelConfig, ArchitectureError> {
    let text = transformers_text(raw, Decoder::Qwen2)?;
    let strategy = raw.vision_feature_select_strategy.as_deref();
    if !vision::drops_class_token("vision_feature_select_strategy", strategy)? {
        return Err(unsupported("a class token among the joined patches (vision_feature_select_strategy)", "default"));
    }
    let features = Features {
        field: "vision_feature_layer",
        layer: feature_layer(raw, -1)?,
        drop_class_token: true,
        shuffle: shuffle(raw)?,
    };
    let vision = vision::intern_vit(raw.vision_config.as_ref().unwrap_or(&RawVision::default()), &features)?;
    let rows = vision.tokens_per_tile();
    if let Some(length) = raw.image_seq_length.filter(|length| usize::try_from(*length) != Ok(rows)) {
        return Err(invalid("image_seq_length", &length, &format!("the rows of a tile ({rows})")));
    }
    Ok(ModelConfig {
        family: Family::InternVl,
        dialect: Dialect::Transformers,
        tiling: Tiling::Dynamic { min: 1, max: 12, thumbnail: true },
        template: None,
        system_message: None,
        image_token_id: Some(image_token(raw, 151_667, text.vocab_size)?),
        projector: ProjectorConfig {
            norm: true,
            activation: TOP.activation("projector_hidden_act", raw.projector_hidden_act.as_deref(), "gelu")?,
            bias: true,
        },
        stored_dtype: stored_dtype(raw),
        vision,
        text,
    })
}

/// The model of `raw` in the convention of OpenGVLab's chat repositories.
pub fn describe_chat(raw: &RawConfig) -> Result<ModelConfig, ArchitectureError> {
    match raw.ps_version.as_deref() {
        Some("v2") => {}
        other => {
            let name = other.unwrap_or("v1");
            return Err(unsupported(&format!("the pixel shuffle {name:?} (ps_version)"), "v2"));
        }
    }
    TOP.unset("pad2square", raw.pad2square, "false")?;
    for (field, rank) in [("use_backbone_lora", raw.use_backbone_lora), ("use_llm_lora", raw.use_llm_lora)] {
        if let Some(rank) = rank.filter(|rank| *rank != 0) {
            return Err(unsupported(&format!("adapters of rank {rank} ({field})"), "merged weights"));
        }
    }
    let none = RawText::default();
    let raw_text = raw.llm_config.as_ref().unwrap_or(&none);
    let class = raw_text.architectures.as_ref().and_then(|names| names.first());
    let decoder = match (class, &raw_text.model_type) {
        (Some(class), _) => Decoder::of_class(class)?,
        (None, Some(kind)) => Decoder::of_kind(kind)?,
        (None, None) => return Err(invalid("llm_config.architectures", &"missing", "the class of the decoder")),
    };
    let features = Features {
        field: "select_layer",
        layer: raw.select_layer.unwrap_or(-1),
        drop_class_token: true,
        shuffle: shuffle(raw)?,
    };
    let raw_vision = raw.vision_config.clone().unwrap_or_default();
    Ok(ModelConfig {
        family: Family::InternVl,
        dialect: Dialect::Original,
        tiling: tiling(raw)?,
        template: raw.template.clone(),
        system_message: raw.system_message.clone(),
        image_token_id: None,
        projector: ProjectorConfig { norm: true, activation: Activation::Gelu, bias: true },
        stored_dtype: stored_dtype(raw),
        vision: vision::intern_vit_chat(&raw_vision, raw.force_image_size, &features)?,
        text: text::describe(raw_text, decoder, Fields { prefix: "llm_config." }, raw.eos_token_id.as_ref())?,
    })
}

fn tiling(raw: &RawConfig) -> Result<Tiling, ArchitectureError> {
    if raw.dynamic_image_size != Some(true) {
        return Ok(Tiling::Dynamic { min: 1, max: 1, thumbnail: false });
    }
    let max = bounded("max_dynamic_patch", raw.max_dynamic_patch.unwrap_or(6), 1, 63)?;
    let min = bounded("min_dynamic_patch", raw.min_dynamic_patch.unwrap_or(1), 1, max)?;
    Ok(Tiling::Dynamic { min: min as u32, max: max as u32, thumbnail: raw.use_thumbnail.unwrap_or(false) })
}

/// Side of the squares of patches that are joined.
fn shuffle(raw: &RawConfig) -> Result<usize, ArchitectureError> {
    let ratio = raw.downsample_ratio.unwrap_or(0.5);
    let side = (1..=8).find(|side| (ratio * f64::from(*side) - 1.0).abs() < 1e-9);
    side.map(|side| side as usize).ok_or_else(|| invalid("downsample_ratio", &ratio, "1, 1/2, 1/3, … or 1/8"))
}

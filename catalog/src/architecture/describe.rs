//! From the file as written to [`ModelConfig`]: fills defaults, refuses what is not served, bounds numbers.

#![expect(clippy::cast_possible_wrap, reason = "sizes are bounded far below the sign bit")]

use super::raw::{OneOrMany, RawConfig, RawRope, RawText, RawVision};
use super::{
    Activation, ArchitectureError, Dialect, Family, ModelConfig, ProjectorConfig, TextConfig, Tiling, Tower,
    VisionConfig,
};

const FAMILIES: &str = "LlavaForConditionalGeneration with a CLIP tower and a Llama decoder";

/// Describes the model of `raw`.
///
/// # Errors
/// [`ArchitectureError::Unsupported`] for another family or feature, [`ArchitectureError::Invalid`]
/// for a number that makes no model.
pub fn describe(raw: &RawConfig) -> Result<ModelConfig, ArchitectureError> {
    let family = family(raw)?;
    if raw.quantization_config.is_some() {
        return Err(unsupported("weights quantised beforehand (quantization_config)", "f16, bf16 and f32 weights"));
    }
    let text = text(raw.text_config.as_ref().unwrap_or(&RawText::default()), raw)?;
    let vision = vision(raw.vision_config.as_ref().unwrap_or(&RawVision::default()), raw)?;
    let image_token = raw.image_token_index.or(raw.image_token_id).unwrap_or(32_000);
    Ok(ModelConfig {
        family,
        dialect: Dialect::Transformers,
        tiling: Tiling::One { pad: None },
        template: None,
        system_message: None,
        image_token_id: Some(bounded("image_token_index", Some(image_token), 0, 0, text.vocab_size as i64 - 1)? as u32),
        projector: ProjectorConfig {
            norm: false,
            activation: activation("projector_hidden_act", raw.projector_hidden_act.as_deref().unwrap_or("gelu"))?,
            bias: raw.multimodal_projector_bias.unwrap_or(true),
        },
        stored_dtype: raw.torch_dtype.clone().or_else(|| raw.dtype.clone()),
        text,
        vision,
    })
}

fn family(raw: &RawConfig) -> Result<Family, ArchitectureError> {
    let class = raw.architectures.as_ref().and_then(|names| names.first());
    match (class.map(String::as_str), raw.model_type.as_deref()) {
        (Some("LlavaForConditionalGeneration"), _) | (None, Some("llava")) => Ok(Family::Llava),
        (Some(name), _) | (None, Some(name)) => Err(unsupported(&format!("the architecture {name:?}"), FAMILIES)),
        (None, None) => Err(unsupported("no architecture (neither architectures nor model_type)", FAMILIES)),
    }
}

fn text(raw: &RawText, whole: &RawConfig) -> Result<TextConfig, ArchitectureError> {
    let kind = raw.model_type.as_deref().unwrap_or("llama");
    if kind != "llama" {
        return Err(unsupported(&format!("the decoder {kind:?}"), "llama"));
    }
    expect_one_of("text_config.hidden_act", raw.hidden_act.as_deref(), &["silu", "swish"])?;
    if raw.mlp_bias == Some(true) || raw.attention_bias == Some(true) {
        return Err(unsupported("a decoder with attention_bias or mlp_bias", "a Llama decoder without biases"));
    }
    let number = |name: &str, value, default, max| {
        bounded(&format!("text_config.{name}"), value, default, 1, max).map(|v| v as usize)
    };
    let hidden_size = number("hidden_size", raw.hidden_size, 4096, 1 << 16)?;
    let heads = number("num_attention_heads", raw.num_attention_heads, 32, 1 << 12)?;
    let kv_heads = number("num_key_value_heads", raw.num_key_value_heads, heads as i64, heads as i64)?;
    if raw.head_dim.is_none() {
        divides("text_config.num_attention_heads", heads, "hidden_size", hidden_size)?;
    }
    divides("text_config.num_key_value_heads", kv_heads, "num_attention_heads", heads)?;
    let head_dim = number("head_dim", raw.head_dim, (hidden_size / heads) as i64, 1 << 10)?;
    if head_dim % 2 == 1 {
        return Err(invalid("text_config.head_dim", &head_dim, "even"));
    }
    Ok(TextConfig {
        vocab_size: number("vocab_size", raw.vocab_size, 32_000, 1 << 22)?,
        hidden_size,
        intermediate_size: number("intermediate_size", raw.intermediate_size, 11_008, 1 << 18)?,
        layers: number("num_hidden_layers", raw.num_hidden_layers, 32, 1 << 10)?,
        heads,
        kv_heads,
        head_dim,
        rope_theta: rope_theta(raw)?,
        long_rope: None,
        rms_norm_eps: epsilon("text_config.rms_norm_eps", raw.rms_norm_eps, 1e-6)?,
        max_positions: number("max_position_embeddings", raw.max_position_embeddings, 2048, 1 << 22)?,
        qkv_bias: false,
        eos_token_ids: token_ids(raw.eos_token_id.as_ref().or(whole.eos_token_id.as_ref())),
    })
}

fn rope_theta(raw: &RawText) -> Result<f64, ArchitectureError> {
    let parameters = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    // "dynamic" scaling acts only beyond max_position_embeddings, which is the longest sequence served.
    let kind = parameters.and_then(|RawRope { rope_type, kind, .. }| rope_type.as_deref().or(kind.as_deref()));
    expect_one_of("text_config.rope_scaling", kind, &["default", "dynamic"])?;
    let theta = parameters.and_then(|p| p.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
    if theta.is_finite() && theta > 1.0 && theta <= 1e12 {
        Ok(theta)
    } else {
        Err(invalid("text_config.rope_theta", &theta, "between 1 and 1e12"))
    }
}

fn vision(raw: &RawVision, whole: &RawConfig) -> Result<VisionConfig, ArchitectureError> {
    let kind = raw.model_type.as_deref().unwrap_or("clip_vision_model");
    if kind != "clip_vision_model" {
        return Err(unsupported(&format!("the vision tower {kind:?}"), "clip_vision_model"));
    }
    let number = |name: &str, value, default, max| {
        bounded(&format!("vision_config.{name}"), value, default, 1, max).map(|v| v as usize)
    };
    number("num_channels", raw.num_channels, 3, 3).and_then(|channels| match channels {
        3 => Ok(()),
        other => Err(invalid("vision_config.num_channels", &other, "3")),
    })?;
    let hidden_size = number("hidden_size", raw.hidden_size, 1024, 1 << 14)?;
    let heads = number("num_attention_heads", raw.num_attention_heads, 16, 1 << 10)?;
    divides("vision_config.num_attention_heads", heads, "hidden_size", hidden_size)?;
    let image_size = number("image_size", side("vision_config.image_size", raw.image_size.as_ref())?, 336, 1 << 12)?;
    let patch_size = number("patch_size", side("vision_config.patch_size", raw.patch_size.as_ref())?, 14, 1 << 8)?;
    divides("vision_config.patch_size", patch_size, "image_size", image_size)?;
    let layers = number("num_hidden_layers", raw.num_hidden_layers, 24, 1 << 10)?;
    Ok(VisionConfig {
        tower: Tower::Clip,
        shuffle: 1,
        hidden_size,
        intermediate_size: number("intermediate_size", raw.intermediate_size, 4096, 1 << 18)?,
        layers,
        heads,
        image_size,
        patch_size,
        layer_norm_eps: epsilon("vision_config.layer_norm_eps", raw.layer_norm_eps, 1e-5)?,
        activation: activation("vision_config.hidden_act", raw.hidden_act.as_deref().unwrap_or("quick_gelu"))?,
        layers_used: layers_used(whole.vision_feature_layer.as_ref(), layers)?,
        drop_class_token: drop_class_token(whole.vision_feature_select_strategy.as_deref())?,
    })
}

/// Hidden state 0 is the embedding, state n the output of layer n; negative counts from the last.
fn layers_used(raw: Option<&OneOrMany>, layers: usize) -> Result<usize, ArchitectureError> {
    let layer = match raw.map(OneOrMany::values) {
        None => -2,
        Some([layer]) => *layer,
        Some(other) => {
            return Err(unsupported(&format!("{} vision_feature_layers", other.len()), "one vision_feature_layer"));
        }
    };
    let states = layers as i64 + 1;
    let index = if layer < 0 { layer.saturating_add(states) } else { layer };
    if (0..states).contains(&index) {
        Ok(index as usize)
    } else {
        Err(invalid("vision_feature_layer", &layer, &format!("between {} and {}", -states, states - 1)))
    }
}

fn drop_class_token(raw: Option<&str>) -> Result<bool, ArchitectureError> {
    match raw.unwrap_or("default") {
        "default" | "patch" => Ok(true),
        "full" | "cls_patch" => Ok(false),
        other => Err(invalid("vision_feature_select_strategy", &other, "default or full")),
    }
}

fn activation(field: &str, name: &str) -> Result<Activation, ArchitectureError> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "quick_gelu" => Ok(Activation::QuickGelu),
        other => Err(unsupported(&format!("{field} {other:?}"), "gelu and quick_gelu")),
    }
}

fn side(field: &str, raw: Option<&OneOrMany>) -> Result<Option<i64>, ArchitectureError> {
    match raw.map(OneOrMany::values) {
        None => Ok(None),
        Some([side]) => Ok(Some(*side)),
        Some([height, width]) if height == width => Ok(Some(*height)),
        Some(other) => Err(invalid(field, &format!("{other:?}"), "one side of a square")),
    }
}

fn token_ids(raw: Option<&OneOrMany>) -> Vec<u32> {
    raw.map(|ids| ids.values().iter().filter_map(|id| u32::try_from(*id).ok()).collect()).unwrap_or_default()
}

fn bounded(field: &str, value: Option<i64>, default: i64, min: i64, max: i64) -> Result<i64, ArchitectureError> {
    let value = value.unwrap_or(default);
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, &value, &format!("between {min} and {max}")))
    }
}

fn epsilon(field: &str, value: Option<f64>, default: f64) -> Result<f64, ArchitectureError> {
    let value = value.unwrap_or(default);
    if value > 0.0 && value < 1.0 { Ok(value) } else { Err(invalid(field, &value, "between 0 and 1")) }
}

fn divides(field: &str, value: usize, whole_name: &str, whole: usize) -> Result<(), ArchitectureError> {
    if whole.is_multiple_of(value) {
        Ok(())
    } else {
        Err(invalid(field, &value, &format!("a divisor of {whole_name} ({whole})")))
    }
}

fn expect_one_of(field: &str, value: Option<&str>, known: &[&str]) -> Result<(), ArchitectureError> {
    match value {
        Some(value) if !known.contains(&value) => {
            Err(invalid(field, &format!("{value:?}"), &format!("one of {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

fn unsupported(what: &str, supported: &'static str) -> ArchitectureError {
    ArchitectureError::Unsupported { what: what.to_owned(), supported }
}

fn invalid(field: &str, value: &impl ToString, expected: &str) -> ArchitectureError {
    ArchitectureError::Invalid { field: field.to_owned(), value: value.to_string(), expected: expected.to_owned() }
}

//! From the file as written to [`ModelConfig`]: tells the families apart, refuses what is not served, and bounds
//! the whole. Each family's and each part's fields are read in a file of their own.

mod fields;
mod internvl;
mod llava;
mod original;
mod pinpoints;
mod rope;
mod text;
mod tower;
mod vision;

use super::raw::{RawConfig, RawQuantization, RawText};
use super::{ArchitectureError, Family, ModelConfig, TextConfig};
use crate::checkpoint::{CheckpointSize, Head};
use fields::{Fields, bounded, invalid, unsupported};
use text::Decoder;
pub use tower::{FoundTower, TowerShapes, describe_tower, tower_from_tensors};

const FAMILIES: &str = "LlavaForConditionalGeneration, LlavaNextForConditionalGeneration, \
                        InternVLForConditionalGeneration, LlavaLlamaForCausalLM, LlavaMistralForCausalLM, \
                        InternVLChatModel";
/// Numbers in a whole model; ten times those of the largest published one.
const MOST_PARAMETERS: u64 = 1 << 40;

/// Whose file it is.
#[derive(Clone, Copy)]
enum Writer {
    Llava(Family),
    OriginalLlava(Decoder),
    InternVl,
    InternVlChat,
}

/// Describes the model of `raw`.
///
/// The longest sequence is capped where the model itself would change: at the sliding window of attention, and
/// at the length from which "dynamic" rotary scaling acts.
///
/// The original LLaVA says nothing of its vision tower: it is taken for the published one until
/// [`tower_from_tensors`] has looked at the weights.
///
/// # Errors
/// [`ArchitectureError::Unsupported`] for another family or feature, [`ArchitectureError::Invalid`]
/// for a number that makes no model.
pub fn describe(raw: &RawConfig) -> Result<ModelConfig, ArchitectureError> {
    let writer = writer(raw)?;
    refuse_quantised(raw)?;
    let config = match writer {
        Writer::Llava(family) => llava::describe(raw, family),
        Writer::OriginalLlava(decoder) => original::describe(raw, decoder),
        Writer::InternVl => internvl::describe(raw),
        Writer::InternVlChat => internvl::describe_chat(raw),
    }?;
    let parameters = CheckpointSize::of(&config, Head::Stored).parameters();
    if parameters > MOST_PARAMETERS {
        return Err(invalid("the number of parameters", &parameters, &format!("at most {MOST_PARAMETERS}")));
    }
    Ok(config)
}

fn writer(raw: &RawConfig) -> Result<Writer, ArchitectureError> {
    if let Some(class) = raw.architectures.as_ref().and_then(|names| names.first()) {
        return match class.as_str() {
            "LlavaForConditionalGeneration" => Ok(Writer::Llava(Family::Llava)),
            "LlavaNextForConditionalGeneration" => Ok(Writer::Llava(Family::LlavaNext)),
            "InternVLForConditionalGeneration" => Ok(Writer::InternVl),
            "LlavaLlamaForCausalLM" => Ok(Writer::OriginalLlava(Decoder::Llama)),
            "LlavaMistralForCausalLM" => Ok(Writer::OriginalLlava(Decoder::Mistral)),
            "InternVLChatModel" => Ok(Writer::InternVlChat),
            other => Err(unsupported(&format!("the architecture {other:?}"), FAMILIES)),
        };
    }
    match raw.model_type.as_deref() {
        // The transformers library and the original repository use this name alike.
        Some("llava") if raw.mm_projector_type.is_some() || raw.mm_vision_tower.is_some() => {
            Ok(Writer::OriginalLlava(Decoder::Llama))
        }
        Some("llava") => Ok(Writer::Llava(Family::Llava)),
        Some("llava_next") => Ok(Writer::Llava(Family::LlavaNext)),
        Some("internvl") => Ok(Writer::InternVl),
        Some("llava_llama") => Ok(Writer::OriginalLlava(Decoder::Llama)),
        Some("llava_mistral") => Ok(Writer::OriginalLlava(Decoder::Mistral)),
        Some("internvl_chat") => Ok(Writer::InternVlChat),
        Some(other) => Err(unsupported(&format!("the architecture {other:?}"), FAMILIES)),
        None => Err(unsupported("no architecture (neither architectures nor model_type)", FAMILIES)),
    }
}

/// Weights that GPTQ, AWQ, bitsandbytes or others made cannot be read.
fn refuse_quantised(raw: &RawConfig) -> Result<(), ArchitectureError> {
    let of_text = |text: &Option<RawText>| text.as_ref().and_then(|text| text.quantization_config.clone());
    let found: [(&str, Option<RawQuantization>); 4] = [
        ("quantization_config", raw.quantization_config.clone()),
        ("text_config.quantization_config", of_text(&raw.text_config)),
        ("llm_config.quantization_config", of_text(&raw.llm_config)),
        (
            "vision_config.quantization_config",
            raw.vision_config.as_ref().and_then(|vision| vision.quantization_config.clone()),
        ),
    ];
    for (field, quantization) in found {
        if let Some(RawQuantization { method }) = quantization {
            let method = method.map_or(String::new(), |method| format!(", quant_method {method:?}"));
            return Err(unsupported(
                &format!("pre-quantised weights ({field}{method})"),
                "f16, bf16 and f32 weights, from which int8 and int4 are made at load",
            ));
        }
    }
    Ok(())
}

/// The decoder of a model of the transformers library, `default` where nothing says which.
fn transformers_text(raw: &RawConfig, default: Decoder) -> Result<TextConfig, ArchitectureError> {
    let none = RawText::default();
    let text = raw.text_config.as_ref().unwrap_or(&none);
    let class = text.architectures.as_ref().and_then(|names| names.first());
    let decoder = match (&text.model_type, class) {
        (Some(kind), _) => Decoder::of_kind(kind)?,
        (None, Some(class)) => Decoder::of_class(class)?,
        (None, None) => default,
    };
    text::describe(text, decoder, Fields { prefix: "text_config." }, raw.eos_token_id.as_ref())
}

/// The id of the image token under its older or newer name.
fn image_token(raw: &RawConfig, default: i64, vocab_size: usize) -> Result<u32, ArchitectureError> {
    let last = i64::try_from(vocab_size).unwrap_or(i64::MAX) - 1;
    let (field, id) = match (raw.image_token_index, raw.image_token_id) {
        (None, Some(id)) => ("image_token_id", id),
        (index, _) => ("image_token_index", index.unwrap_or(default)),
    };
    bounded(field, id, 0, last).map(|id| id as u32)
}

fn stored_dtype(raw: &RawConfig) -> Option<String> {
    let part = raw.text_config.as_ref().or(raw.llm_config.as_ref());
    let of_part = part.and_then(|text| text.torch_dtype.clone().or_else(|| text.dtype.clone()));
    raw.torch_dtype.clone().or_else(|| raw.dtype.clone()).or(of_part)
}

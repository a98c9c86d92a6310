//! The decoder: which one of the Llama kind it is, what its configuration leaves out, and its bounds.

use super::super::raw::{OneOrMany, RawText};
use super::super::{ArchitectureError, TextConfig};
use super::fields::{Fields, invalid, unsupported};
use super::rope::{self, Rope};

const DECODERS: &str = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, InternLM2ForCausalLM, \
                        InternLM3ForCausalLM, Phi3ForCausalLM";
const KINDS: &str = "llama, mistral, qwen2, internlm2, internlm3, phi3";

/// The decoders that are served; all are one architecture, and differ in what their configurations leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Llama, Vicuna and Yi.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and 2.5.
    Qwen2,
    /// InternLM2 and 2.5, and 3 where it is stored under the names of 2.
    InternLm2,
    /// `InternLM3`.
    InternLm3,
    /// Phi-3.
    Phi3,
}

/// What a decoder's own configuration class fills in.
struct Defaults {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    /// `None` for as many as query heads.
    kv_heads: Option<i64>,
    max_positions: i64,
    rms_norm_eps: f64,
}

impl Decoder {
    /// By the name of its class.
    pub fn of_class(name: &str) -> Result<Self, ArchitectureError> {
        match name {
            "LlamaForCausalLM" => Ok(Self::Llama),
            "MistralForCausalLM" => Ok(Self::Mistral),
            "Qwen2ForCausalLM" => Ok(Self::Qwen2),
            "InternLM2ForCausalLM" => Ok(Self::InternLm2),
            "InternLM3ForCausalLM" => Ok(Self::InternLm3),
            "Phi3ForCausalLM" => Ok(Self::Phi3),
            other => Err(unsupported(&format!("the decoder {other:?}"), DECODERS)),
        }
    }

    /// By its `model_type`.
    pub fn of_kind(name: &str) -> Result<Self, ArchitectureError> {
        match name {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "internlm2" => Ok(Self::InternLm2),
            "internlm3" => Ok(Self::InternLm3),
            "phi3" => Ok(Self::Phi3),
            other => Err(unsupported(&format!("the decoder {other:?}"), KINDS)),
        }
    }

    fn defaults(self) -> Defaults {
        let llama = Defaults {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            kv_heads: None,
            max_positions: 2048,
            rms_norm_eps: 1e-6,
        };
        match self {
            Self::Llama => llama,
            Self::Mistral => Defaults { intermediate_size: 14_336, kv_heads: Some(8), max_positions: 131_072, ..llama },
            Self::Qwen2 => Defaults {
                vocab_size: 151_936,
                intermediate_size: 22_016,
                kv_heads: Some(32),
                max_positions: 32_768,
                ..llama
            },
            Self::InternLm2 => Defaults { vocab_size: 103_168, ..llama },
            Self::InternLm3 => Defaults { vocab_size: 128_512, max_positions: 32_768, ..llama },
            Self::Phi3 => Defaults {
                vocab_size: 32_064,
                hidden_size: 3072,
                intermediate_size: 8192,
                max_positions: 4096,
                rms_norm_eps: 1e-5,
                ..llama
            },
        }
    }
}

/// The decoder of `raw`; `eos` are the ids of the whole file, for when the part has none.
pub fn describe(
    raw: &RawText,
    decoder: Decoder,
    at: Fields,
    eos: Option<&OneOrMany>,
) -> Result<TextConfig, ArchitectureError> {
    let defaults = decoder.defaults();
    match raw.hidden_act.as_deref() {
        None | Some("silu" | "swish") => {}
        Some(other) => {
            return Err(unsupported(&format!("the activation {other:?} ({})", at.path("hidden_act")), "silu"));
        }
    }
    let hidden_size = at.number("hidden_size", raw.hidden_size, defaults.hidden_size, 1 << 16)?;
    let heads = at.number("num_attention_heads", raw.num_attention_heads, 32, 1 << 12)?;
    let most = i64::try_from(heads).unwrap_or(i64::MAX);
    let kv_heads = raw.num_key_value_heads.or(defaults.kv_heads);
    let kv_heads = at.number("num_key_value_heads", kv_heads, most, most)?;
    if raw.head_dim.is_none() {
        at.divides("num_attention_heads", heads, "hidden_size", hidden_size)?;
    }
    at.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)?;
    let each = i64::try_from(hidden_size / heads).unwrap_or(i64::MAX);
    let head_dim = at.number("head_dim", raw.head_dim, each, 1 << 10)?;
    if head_dim % 2 == 1 {
        return Err(invalid(&at.path("head_dim"), &head_dim, "even"));
    }
    let positions =
        at.number("max_position_embeddings", raw.max_position_embeddings, defaults.max_positions, 1 << 22)?;
    let Rope { theta, long, max_positions } = rope::describe(raw, at, head_dim, positions)?;
    Ok(TextConfig {
        vocab_size: at.number("vocab_size", raw.vocab_size, defaults.vocab_size, 1 << 22)?,
        hidden_size,
        intermediate_size: at.number(
            "intermediate_size",
            raw.intermediate_size,
            defaults.intermediate_size,
            1 << 18,
        )?,
        layers: at.number("num_hidden_layers", raw.num_hidden_layers, 32, 1 << 10)?,
        heads,
        kv_heads,
        head_dim,
        rope_theta: theta,
        long_rope: long,
        rms_norm_eps: at.epsilon("rms_norm_eps", raw.rms_norm_eps, defaults.rms_norm_eps)?,
        max_positions: max_positions.min(window(raw, decoder, at)?),
        qkv_bias: qkv_bias(raw, decoder, at)?,
        eos_token_ids: token_ids(raw.eos_token_id.as_ref().or(eos)),
    })
}

/// Longest sequence for which attention in a sliding window is attention over everything. What is longer is
/// not served, so the window never acts.
fn window(raw: &RawText, decoder: Decoder, at: Fields) -> Result<usize, ArchitectureError> {
    let window = match decoder {
        Decoder::Mistral => raw.sliding_window.or(4096),
        Decoder::Qwen2 if raw.use_sliding_window == Some(true) => raw.sliding_window.or(4096),
        Decoder::Phi3 => raw.sliding_window.value(),
        Decoder::Llama | Decoder::Qwen2 | Decoder::InternLm2 | Decoder::InternLm3 => None,
    };
    match window {
        Some(window) => at.number("sliding_window", Some(window), 1, 1 << 32),
        None => Ok(usize::MAX),
    }
}

/// Whether queries, keys and values have biases. Biases anywhere else are refused.
fn qkv_bias(raw: &RawText, decoder: Decoder, at: Fields) -> Result<bool, ArchitectureError> {
    const SUPPORTED: &str = "biases of queries, keys and values in Qwen2 and InternLM3, none elsewhere";
    at.unset("mlp_bias", raw.mlp_bias, SUPPORTED)?;
    match decoder {
        Decoder::Qwen2 => Ok(true),
        Decoder::InternLm3 => at.unset("bias", raw.bias, SUPPORTED).map(|()| raw.qkv_bias == Some(true)),
        Decoder::InternLm2 => at.unset("bias", raw.bias, SUPPORTED).map(|()| false),
        Decoder::Llama | Decoder::Mistral | Decoder::Phi3 => {
            at.unset("attention_bias", raw.attention_bias, SUPPORTED).map(|()| false)
        }
    }
}

fn token_ids(raw: Option<&OneOrMany>) -> Vec<u32> {
    raw.map(|ids| ids.values().iter().filter_map(|id| u32::try_from(*id).ok()).collect()).unwrap_or_default()
}

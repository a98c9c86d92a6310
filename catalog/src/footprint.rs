//! Whether a model fits a device, and with how much room: a pure function of the model's description, the size of
//! its checkpoint, what a manifest asks for and the device's memory.
//!
//! Needed are the weights, what reading a picture and computing a step take, what the device's runtime takes, and
//! keys and values of one sequence of the longest context. It fits when that is at most [`SHARE_PERCENT`] of the
//! memory; keys and values get all that is left of it.

mod largest;
mod needs;
mod on_gpu;
mod report;
mod suggestion;

use std::fmt;

use crate::architecture::ModelConfig;
use crate::checkpoint::CheckpointSize;
use crate::kv_cache::KvCacheDtype;
use crate::quantization::{Quantization, QuantizationChoice};

use largest::largest;
pub use needs::{Breakdown, KV_BLOCK_TOKENS, PICTURE_CACHE_BYTES, PREFILL_TOKENS, TILES_AT_A_TIME};
pub use on_gpu::{
    GPU_FEW_QUANTISED_ROWS, GPU_PADDED_ROWS, GPU_PREFILL_TOKENS, GPU_TILES_AT_A_TIME, GPU_WIDENED_NUMBERS,
};
pub use report::{bytes_in_words, gib};
pub use suggestion::{Suggestion, suggest};

/// Share of a device's memory that is planned with, in percent: drivers, fragmentation and other processes take
/// some, and a device's nominal memory is more than what can be allocated.
pub const SHARE_PERCENT: u64 = 92;
/// Tokens of text, question and answer together, that a typical request has beside its picture.
pub const TYPICAL_TEXT_TOKENS: u64 = 512;
/// Context that is enough for `auto` when a manifest asks for none; less when the model has less.
pub const AMPLE_TOKENS: u64 = 8192;
/// Most requests at a time on a GPU, unless a manifest asks for more.
pub const MOST_CONCURRENT: u64 = 128;
/// Most requests at a time on processor cores, unless a manifest asks for more, and as many where no memory limit says
/// how many fit: more at a time are answered no faster there, only each of them later.
const MOST_CONCURRENT_ON_CPU: u64 = 8;

/// What is to be served.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// Its description.
    pub config: &'a ModelConfig,
    /// Its tensors.
    pub size: &'a CheckpointSize,
}

/// What a manifest asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `spec.quantization`.
    pub quantization: QuantizationChoice,
    /// `spec.context.maxTokens`; by default the longest that fits and that the model takes.
    pub max_tokens: Option<u64>,
    /// `spec.context.maxConcurrency`; by default as many typical requests as fit.
    pub max_concurrency: Option<u64>,
    /// `spec.context.kvCacheDtype`.
    pub kv_cache_dtype: KvCacheDtype,
}

/// What a replica runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A GPU, or a slice of one, with this many bytes in all. Numbers have 16 bit unless quantised.
    Gpu {
        /// All its memory.
        memory_bytes: u64,
    },
    /// Processor cores. Numbers have 32 bit unless quantised.
    Cpu {
        /// The container's memory limit, if it has one.
        memory_bytes: Option<u64>,
    },
}

impl Device {
    /// Bytes that may be used; `None` without a limit.
    pub fn available_bytes(self) -> Option<u64> {
        let memory = match self {
            Self::Gpu { memory_bytes } => memory_bytes,
            Self::Cpu { memory_bytes } => memory_bytes?,
        };
        Some(share(memory))
    }

    /// The same kind of device with another memory.
    pub(crate) fn with_memory(self, bytes: u64) -> Self {
        match self {
            Self::Gpu { .. } => Self::Gpu { memory_bytes: bytes },
            Self::Cpu { .. } => Self::Cpu { memory_bytes: Some(bytes) },
        }
    }
}

/// [`SHARE_PERCENT`] of `bytes`.
fn share(bytes: u64) -> u64 {
    bytes / 100 * SHARE_PERCENT + bytes % 100 * SHARE_PERCENT / 100
}

/// Whether it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// It does not.
    DoesNotFit,
    /// No limit says how much there is.
    NoLimit,
}

/// How a model fits a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Whether it does.
    pub verdict: Verdict,
    /// Number format of the decoder.
    pub quantization: Quantization,
    /// Number format of keys and values.
    pub kv_cache_dtype: KvCacheDtype,
    /// Why `auto` chose it; `None` when the manifest did.
    pub chosen_because: Option<String>,
    /// Longest sequence in tokens. When nothing fits: the wished one, or the shortest that makes sense.
    pub max_tokens: u64,
    /// Requests at a time.
    pub max_concurrency: u64,
    /// Bytes for keys and values, all that is left; 0 when it does not fit.
    pub kv_bytes: u64,
    /// Bytes that the server is to keep of pictures at most; `None` leaves it to the server.
    pub picture_cache_bytes: Option<u64>,
    /// Bytes of everything with one sequence of `max_tokens`.
    pub required_bytes: u64,
    /// Bytes that may be used; `None` without a limit.
    pub available_bytes: Option<u64>,
    /// What `required_bytes` is made of.
    pub breakdown: Breakdown,
    /// Sequences of `max_tokens` that fit at the same time.
    pub full_length_sequences: u64,
    /// Requests with one picture of the largest kind and [`TYPICAL_TEXT_TOKENS`] that fit at the same time.
    pub typical_requests: u64,
}

impl Fit {
    /// Bytes that the server's cache of keys and values is to have, its spare block included.
    pub fn cache_bytes(&self) -> u64 {
        self.breakdown.cache_bytes(self.kv_bytes)
    }

    /// Whether a replica may start.
    pub fn may_start(&self) -> bool {
        self.verdict != Verdict::DoesNotFit
    }
}

/// The wished context is longer than what the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextTooLong {
    /// What the manifest asks for.
    pub wished: u64,
    /// What the model takes.
    pub longest: u64,
}

impl fmt::Display for ContextTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wished, longest } = self;
        write!(f, "context.maxTokens is {wished}, but the model takes at most {longest} tokens")
    }
}

impl std::error::Error for ContextTooLong {}

/// How `model` fits `device` in the way that `wish` asks for.
///
/// `auto` takes the first of none, int8 and int4 that gives the wished context and concurrency; where the manifest
/// asks for no context, [`AMPLE_TOKENS`] or all that the model takes; where none gives that, the one with the most.
///
/// # Errors
/// When the wished context is longer than what the model takes.
pub fn fit(model: Model<'_>, wish: Wish, device: Device) -> Result<Fit, ContextTooLong> {
    let longest = longest(model);
    if let Some(wished) = wish.max_tokens.filter(|wished| *wished > longest) {
        return Err(ContextTooLong { wished, longest });
    }
    let fitted = |quantization| of(model, wish, device, quantization);
    Ok(match wish.quantization {
        QuantizationChoice::Fixed(quantization) => fitted(quantization),
        QuantizationChoice::Auto => choose(model, wish, &Quantization::ALL.map(fitted)),
    })
}

/// Longest sequence that the model takes.
fn longest(model: Model<'_>) -> u64 {
    model.config.text.max_positions.max(1) as u64
}

/// Tokens of a request with one picture of the largest kind.
fn typical(model: Model<'_>) -> u64 {
    model.config.largest_image_tokens().saturating_add(TYPICAL_TEXT_TOKENS).min(longest(model))
}

/// The first that gives what was wished for, else the one with the longest context, the smallest of equal ones.
fn choose(model: Model<'_>, wish: Wish, all: &[Fit; 3]) -> Fit {
    let tokens = wish.max_tokens.unwrap_or(AMPLE_TOKENS.min(longest(model)));
    let requests = wish.max_concurrency.unwrap_or(1);
    let gives = |fit: &Fit| fit.may_start() && fit.max_tokens >= tokens && fit.typical_requests >= requests;
    let wished = format!("{tokens} tokens and {requests} at a time");
    if let Some(fit) = all.iter().find(|fit| gives(fit)) {
        let larger = Quantization::ALL.iter().take_while(|other| **other != fit.quantization);
        let larger: Vec<_> = larger.map(|quantization| quantization.name()).collect();
        let because = match (fit.verdict, larger.as_slice()) {
            (Verdict::NoLimit, _) => "there is no memory limit to fit into".to_owned(),
            (_, []) => format!("{wished} fit as the weights are stored"),
            (_, larger) => format!("{wished} fit, and not with {}", larger.join(" or ")),
        };
        return Fit { chosen_because: Some(because), ..fit.clone() };
    }
    let room = |fit: &&Fit| (fit.may_start(), fit.kv_tokens(), fit.quantization == Quantization::Int4);
    let [.., last] = all;
    let best = all.iter().max_by_key(room).unwrap_or(last);
    let because = format!("{wished} fit with none of them; this has the most room");
    Fit { chosen_because: Some(because), ..best.clone() }
}

impl Fit {
    fn kv_tokens(&self) -> u64 {
        self.kv_bytes / self.breakdown.kv_bytes_per_token.max(1)
    }
}

fn of(model: Model<'_>, wish: Wish, device: Device, quantization: Quantization) -> Fit {
    let available = device.available_bytes();
    let needs = |tokens| Breakdown::of(model, quantization, wish, device, tokens);
    let longest = longest(model);
    let max_tokens = match (wish.max_tokens, available) {
        (Some(wished), _) => wished.max(1),
        (None, None) => AMPLE_TOKENS.min(longest),
        (None, Some(available)) => {
            let fits = |tokens| needs(tokens).required_bytes() <= available;
            largest(longest, KV_BLOCK_TOKENS, fits).unwrap_or(0).max(typical(model))
        }
    };
    let breakdown = needs(max_tokens);
    let required_bytes = breakdown.required_bytes();
    let typical = typical(model).min(max_tokens).max(1);
    let (verdict, kv_bytes) = match available {
        None => {
            let sequences = wish.max_concurrency.unwrap_or(MOST_CONCURRENT_ON_CPU).max(1);
            (Verdict::NoLimit, breakdown.kv_bytes.saturating_mul(sequences))
        }
        Some(available) if required_bytes <= available => (Verdict::Fits, available - breakdown.fixed_bytes()),
        Some(_) => (Verdict::DoesNotFit, 0),
    };
    let typical_requests = kv_bytes / breakdown.sequence_bytes(typical).max(1);
    let concurrent = match (device, available) {
        (_, None) => MOST_CONCURRENT_ON_CPU,
        (Device::Cpu { .. }, Some(_)) => typical_requests.clamp(1, MOST_CONCURRENT_ON_CPU),
        (Device::Gpu { .. }, Some(_)) => typical_requests.clamp(1, MOST_CONCURRENT),
    };
    Fit {
        verdict,
        quantization,
        kv_cache_dtype: wish.kv_cache_dtype,
        chosen_because: None,
        max_tokens,
        max_concurrency: wish.max_concurrency.unwrap_or(concurrent),
        kv_bytes,
        picture_cache_bytes: needs::picture_cache(model.config, device),
        required_bytes,
        available_bytes: available,
        full_length_sequences: kv_bytes / breakdown.kv_bytes.max(1),
        typical_requests,
        breakdown,
    }
}

#[cfg(test)]
mod tests;

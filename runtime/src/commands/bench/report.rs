//! What was measured, as JSON for programs: with all that is needed to measure it again, and how near it is to what
//! memory allows.

use std::path::Path;

use serde::Serialize;
use vlm_catalog::architecture::ModelConfig;
use vlm_catalog::checkpoint::{CheckpointSize, Head, Part};

use super::figures::{Decode, Quantiles, first_tokens, next_tokens};
use super::load::{Timing, Timings};
use super::prompts::Prompts;
use super::soak::Soak;
use super::start::StartSeconds;
use crate::args::{BenchArgs, BenchMode};
use crate::device::{Demand, Taken};
use crate::engine::scheduler::Counts;
use crate::precision::Precision;

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What measured.
    pub program: Program,
    /// In which mode.
    pub mode: &'static str,
    /// On what.
    pub device: String,
    /// Threads that compute, where a processor does.
    pub threads: usize,
    /// What the memory was read at, in bytes a second.
    pub read_bytes_per_second: f64,
    /// What was measured, if not the memory alone.
    #[serde(flatten)]
    pub model: Option<Measured>,
}

/// The binary.
#[derive(Debug, Serialize)]
pub struct Program {
    name: &'static str,
    version: &'static str,
    /// Commit of its source, where the build said it.
    commit: Option<&'static str>,
    /// Whether it can compute on GPUs.
    cuda: bool,
}

/// What was measured of a model.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The model as it is held.
    pub model: Model,
    /// What it takes.
    pub memory: Memory,
    /// What was asked of it.
    pub settings: Settings,
    /// The figures, one set for each batch.
    pub runs: Vec<Run>,
    /// What a long load showed, if that was measured.
    pub soak: Option<Soak>,
}

/// The model as it is held.
#[derive(Debug, Serialize)]
pub struct Model {
    /// Where it is.
    pub path: String,
    /// Whether its weights were drawn.
    pub dummy_weights: bool,
    /// Of numbers that are not quantised.
    pub dtype: &'static str,
    /// Of the decoder's linear layers and its head.
    pub quantization: &'static str,
    /// Number format of keys and values, where it is not that of the weights that are not quantised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_dtype: Option<&'static str>,
    /// From the opening of the device to a warm engine.
    pub load_seconds: f64,
    /// The parts of that.
    pub start_seconds: StartSeconds,
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the JSON, which say their unit")]
pub struct Memory {
    /// Of the weights, as they are held.
    pub weights_bytes: u64,
    /// The same, as the check before loading reckons.
    pub predicted_weights_bytes: u64,
    /// Of keys and values.
    pub kv_bytes: u64,
    /// Most that tensors took at a time, where the device tells.
    pub peak_bytes: Option<u64>,
    /// What else is taken there: contexts, code, the libraries' own.
    pub beside_bytes: Option<u64>,
    /// Both without the KV cache: what a fit has to know.
    pub without_kv_bytes: Option<u64>,
    /// The same, as a fit on a GPU reckons for pictures of the largest kind.
    pub predicted_without_kv_bytes: u64,
}

impl Memory {
    /// Of what was foreseen, and what was taken.
    pub fn of(demand: Demand, weights_bytes: u64, taken: Option<Taken>, predicted_without_kv_bytes: u64) -> Self {
        let (peak, beside) = (taken.map(|taken| taken.most_bytes), taken.map(|taken| taken.beside_bytes));
        let all = taken.map(|taken| taken.most_bytes + taken.beside_bytes);
        Self {
            weights_bytes,
            predicted_weights_bytes: demand.weights,
            kv_bytes: demand.kv,
            peak_bytes: peak,
            beside_bytes: beside,
            without_kv_bytes: all.map(|all| all.saturating_sub(demand.kv)),
            predicted_without_kv_bytes,
        }
    }
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub struct Settings {
    /// Of prompts and moments.
    pub seed: u64,
    /// Tokens of a prompt, those of pictures included.
    pub prompt_tokens: usize,
    /// Those of pictures.
    pub image_tokens: usize,
    /// Pictures of a prompt.
    pub images: usize,
    /// Size of each in pixels.
    pub image_size: String,
    /// Tiles of all pictures of a prompt.
    pub tiles: usize,
    /// Whether all requests have the same pictures.
    pub same_images: bool,
    /// Tokens of an answer.
    pub output_tokens: usize,
    /// Requests a second, where they came at random moments.
    pub request_rate: Option<f64>,
    /// The most of the KV cache, where it was said.
    pub kv_bytes: Option<u64>,
}

impl Settings {
    /// Of `args`, with what they come to for this model.
    pub fn of(args: &BenchArgs, prompts: &Prompts) -> Self {
        Self {
            seed: args.seed,
            prompt_tokens: prompts.tokens(),
            image_tokens: prompts.image_tokens(),
            images: args.images as usize,
            image_size: format!("{}x{}", args.image_size.0, args.image_size.1),
            tiles: prompts.tiles(),
            same_images: args.same_images,
            output_tokens: args.output_tokens as usize,
            request_rate: args.request_rate,
            kv_bytes: args.kv_bytes,
        }
    }
}

/// The figures of one batch.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Sequences at the same time.
    pub batch: usize,
    /// Requests that were answered.
    pub requests: usize,
    /// Requests for which the queue had no room.
    pub refused: usize,
    /// From the first request to the last token.
    pub seconds: f64,
    /// Tokens of all answers.
    pub generated_tokens: usize,
    /// Those, by the seconds.
    pub output_tokens_per_second: f64,
    /// Tokens of all prompts, by the seconds.
    pub prompt_tokens_per_second: f64,
    /// Requests, by the seconds.
    pub requests_per_second: f64,
    /// Pictures, by the seconds.
    pub images_per_second: f64,
    /// From a request to its first token.
    pub first_token_ms: Quantiles,
    /// From a token to the next of its answer.
    pub inter_token_ms: Quantiles,
    /// What the engine did for the requests: what its caches had, what gave way, which steps graphs replayed.
    pub counts: Counts,
    /// While whole batches decoded, where they were sent so.
    pub decode: Option<Decode>,
    /// What memory allows, where as many sequences as the batch has were computed.
    pub limit: Option<Limit>,
}

/// What reading weights, keys and values once a step allows.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// Bytes that a step reads in the middle of the answers.
    pub bytes_per_step: u64,
    /// Tokens of the whole batch in a second, if reading them were all.
    pub tokens_per_second: f64,
    /// What was measured of it: decoding alone where that is known, else all tokens by all seconds.
    pub percent: f64,
}

impl Report {
    /// Of a device whose memory was read at so many bytes a second.
    pub fn new(mode: BenchMode, device: String, read_bytes_per_second: f64) -> Self {
        let program = Program {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("VLM_COMMIT").filter(|commit| !commit.is_empty()),
            cuda: cfg!(feature = "cuda"),
        };
        let threads = rayon::current_num_threads();
        Self { program, mode: mode.name(), device, threads, read_bytes_per_second, model: None }
    }
}

impl Model {
    /// Of the model in `path`.
    pub fn new(path: &Path, dummy_weights: bool, precision: Precision, start: StartSeconds) -> Self {
        Self {
            path: path.display().to_string(),
            dummy_weights,
            dtype: precision.dtype.as_str(),
            quantization: precision.quantization.name(),
            kv_cache_dtype: precision.own_kv_cache_dtype(),
            load_seconds: start.sum(),
            start_seconds: start,
        }
    }
}

impl Run {
    /// The figures of what a batch gave.
    pub fn of(batch: usize, settings: &Settings, timings: &Timings, counts: Counts) -> Self {
        let all = || timings.batches.iter().flatten();
        let (requests, seconds) = (all().count(), timings.seconds);
        let generated_tokens = all().map(|timing: &Timing| timing.tokens.len()).sum();
        let each = |count: usize| count as f64 / seconds;
        Self {
            batch,
            requests,
            refused: timings.refused,
            seconds,
            generated_tokens,
            output_tokens_per_second: each(generated_tokens),
            prompt_tokens_per_second: each(requests * settings.prompt_tokens),
            requests_per_second: each(requests),
            images_per_second: each(requests * settings.images),
            first_token_ms: first_tokens(all()),
            inter_token_ms: next_tokens(all()),
            counts,
            decode: None,
            limit: None,
        }
    }

    /// With the speed of whole batches.
    pub fn with_decode(self, timings: &Timings) -> Self {
        Self { decode: Decode::of(&timings.batches, self.batch), ..self }
    }

    /// With what reading `bytes_per_step` at `read_bytes_per_second` allows.
    pub fn with_limit(self, bytes_per_step: u64, read_bytes_per_second: f64) -> Self {
        let tokens_per_second = self.batch as f64 * read_bytes_per_second / bytes_per_step as f64;
        let measured = self.decode.map_or(self.output_tokens_per_second, |decode| decode.tokens_per_second);
        let percent = 100.0 * measured / tokens_per_second;
        Self { limit: Some(Limit { bytes_per_step, tokens_per_second, percent }), ..self }
    }
}

/// Bytes that a step reads to decode `batch` sequences of `context` tokens: the decoder, its head, all keys and values.
pub fn step_bytes(config: &ModelConfig, precision: Precision, batch: usize, context: usize) -> u64 {
    let (size, number) = (CheckpointSize::of(config, Head::Stored), precision.dtype.size_in_bytes());
    let held = |part| size.held_bytes(part, precision.quantization, number as u64);
    let kv = precision.kv_bytes_per_token(&config.text) * (batch * context) as u64;
    held(Part::DecoderLinear) + held(Part::Head) + kv
}

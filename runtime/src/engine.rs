//! The engine: a handle that any thread may hold, and one thread that owns model and KV cache.
//! `submit` hands a request over and returns its stream of events; the scheduler decides when it
//! runs; dropping the stream cancels it.

#[cfg(feature = "cuda")]
mod ahead;
pub mod blocks;
pub mod encoder_cache;
mod executor;
pub mod fair;
#[cfg(feature = "cuda")]
mod graphs;
mod logprobs;
pub mod prefix;
mod rate;
mod request;
mod sampling;
pub mod scheduler;
mod shared;
mod steering;
mod steps;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

pub use logprobs::Logprobs;
pub use request::{
    AnswerStart, ENCODER_CACHE_BYTES, EngineOptions, Event, Failure, FinishReason, Request, Sampling, Snapshot, Stop,
    SubmitError, TokenStream,
};
pub use sampling::{NotFinite, choose, uniform};
pub use steering::Steering;
pub use steps::{CHUNK, Steps};

use candle_core::Device;
use vlm_catalog::architecture::TextConfig;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::models::VisionLanguage;
use crate::ops::{BLOCK_TOKENS, blocks_for, room_for};
use executor::{Executor, ModelExecutor};
use fair::ClientId;
use prefix::Content;
use scheduler::{Budget, Limits};
use shared::Shared;
use worker::{Submission, Worker};

/// Work of prompts that hold blocks before they have been read.
const READING: Budget = Budget { tokens: 16_384, tiles: 64 };

/// Handle of the engine thread. The thread ends after the last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    submissions: Sender<Submission>,
    shared: Arc<Shared>,
    sizes: Sizes,
}

/// What a prompt is measured with.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Longest sequence.
    max_tokens: usize,
    /// Longest sequence with the rotary angles of short ones.
    short_tokens: usize,
    vocabulary: usize,
    /// Bytes of a row of a picture.
    row_bytes: u64,
    /// Blocks of the KV cache, the dummy block among them.
    blocks: usize,
}

impl Engine {
    /// Loads the weights, warms up and starts the thread. Blocks until the engine can serve.
    ///
    /// # Errors
    /// Weights that do not fit the configuration, options that do not fit the model.
    pub fn start(checkpoint: &Checkpoint, options: EngineOptions) -> Result<Self, CheckpointError> {
        Self::start_on(checkpoint, options, &Device::Cpu)
    }

    /// Like [`Engine::start`], on `device`.
    ///
    /// # Errors
    /// The same, and what `device` has no room for.
    pub fn start_on(checkpoint: &Checkpoint, options: EngineOptions, device: &Device) -> Result<Self, CheckpointError> {
        kv_blocks(&checkpoint.config().text, &options)?;
        let model = VisionLanguage::load_on(checkpoint, options.max_tokens, options.precision, device)?;
        Self::over(model, options)
    }

    /// Like [`Engine::start`], over a model that is loaded for as many positions as `options` asks for.
    ///
    /// # Errors
    /// Options that do not fit the model, a model that does not run.
    pub fn over(model: VisionLanguage, options: EngineOptions) -> Result<Self, CheckpointError> {
        let text = &model.config().text;
        let blocks = kv_blocks(text, &options)?;
        let sizes = Sizes {
            max_tokens: options.max_tokens,
            short_tokens: model.language().short_tokens(),
            vocabulary: text.vocab_size,
            row_bytes: 4 * text.hidden_size as u64,
            blocks,
        };
        let start = |e: candle_core::Error| CheckpointError::Start(e.to_string());
        let begun = Instant::now();
        // A broken model fails here and not in the first request.
        if !model.warm_up().map_err(start)? {
            return Err(CheckpointError::NotFinite);
        }
        let executor = ModelExecutor::new(model, blocks).map_err(start)?;
        let warm = begun.elapsed();
        executor.prepare(options.max_concurrency, options.max_tokens).map_err(start)?;
        tracing::info!(
            warm_up_seconds = format_args!("{:.3}", warm.as_secs_f64()),
            steps_seconds = format_args!("{:.3}", begun.elapsed().as_secs_f64() - warm.as_secs_f64()),
            "warmed up"
        );
        Self::spawn(executor, sizes, &options)
    }

    fn spawn(
        executor: impl Executor + 'static,
        sizes: Sizes,
        options: &EngineOptions,
    ) -> Result<Self, CheckpointError> {
        let shared = Arc::new(Shared::new(options.max_concurrency, options.max_queue));
        let [while_decoding, alone] = executor.budgets();
        let limits = Limits {
            sequences: options.max_concurrency,
            blocks: sizes.blocks.saturating_sub(1),
            while_decoding,
            alone,
            reading: READING,
            encoder_bytes: options.encoder_cache_bytes,
            row_bytes: sizes.row_bytes,
        };
        let worker = Worker::new(executor, limits, Arc::clone(&shared));
        let (submissions, received) = channel();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run(&received))
            .map_err(|e| CheckpointError::Start(e.to_string()))?;
        Ok(Self { submissions, shared, sizes })
    }

    /// Accepts a request or says why not. Never blocks on the model.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, mut request: Request) -> Result<TokenStream, SubmitError> {
        let start = AnswerStart { number: 0, generated: std::mem::take(&mut request.generated) };
        let streams = self.submit_several(ClientId::default(), request, vec![start])?;
        streams.into_iter().next().ok_or(SubmitError::Empty)
    }

    /// Like [`Engine::submit`], in the turn of `client`, for several answers to one prompt, which is read once: the
    /// others begin where the first has its next token. Their seeds follow from the request's and their numbers. Gives
    /// them in the order of `answers`.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_several(
        &self,
        client: ClientId,
        request: Request,
        answers: Vec<AnswerStart>,
    ) -> Result<Vec<TokenStream>, SubmitError> {
        let prompt_tokens = request.prompt.ids.len();
        if prompt_tokens == 0 {
            return Err(SubmitError::Empty);
        }
        let mut request = Request { max_new_tokens: request.max_new_tokens.max(1), ..request };
        let tokens = prompt_tokens.saturating_add(request.max_new_tokens);
        if tokens > self.sizes.max_tokens {
            return Err(SubmitError::TooLong {
                text: request.prompt.text_tokens(),
                images: request.prompt.image_tokens(),
                answer: request.max_new_tokens,
                limit: self.sizes.max_tokens,
            });
        }
        let long = tokens > self.sizes.short_tokens;
        let content = Content::new(&mut request.prompt, self.sizes.vocabulary, long);
        let mut starts = answers.into_iter();
        let Some(start) = starts.next() else { return Ok(Vec::new()) };
        let (events, first) = TokenStream::new();
        let (mut streams, mut more) = (vec![first], Vec::new());
        for start in starts {
            let (events, stream) = TokenStream::new();
            more.push((request.clone().starting(start), events));
            streams.push(stream);
        }
        let submission = Submission { request: request.starting(start), content, events, more, client };
        self.shared.accept(streams.len(), || self.submissions.send(submission).is_ok())?;
        Ok(streams)
    }

    /// Most answers that can be accepted together.
    pub fn most_answers(&self) -> usize {
        self.shared.most_accepted()
    }

    /// What runs and waits now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Refuses new requests and finishes the accepted ones.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Resolves when the thread has ended although this handle is held, whether or not anybody asks for anything.
    pub async fn stopped(&self) -> Stop {
        self.shared.stopped().await
    }

    /// Resolves when nothing runs or waits.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }
}

/// Blocks of the KV cache, the dummy block among them: as many as the given bytes hold.
fn kv_blocks(text: &TextConfig, options: &EngineOptions) -> Result<usize, CheckpointError> {
    let refuse = |reason: String| Err(CheckpointError::Options(reason));
    if options.max_concurrency == 0 || options.max_tokens < 2 {
        return refuse("the concurrency must be at least 1 and the longest sequence at least 2 tokens".to_owned());
    }
    if options.max_tokens > text.max_positions {
        return refuse(format!(
            "the longest sequence is set to {} tokens, but the model takes {}",
            options.max_tokens, text.max_positions
        ));
    }
    let token = options.precision.kv_bytes_per_token(text);
    let block = token.saturating_mul(BLOCK_TOKENS as u64).max(1);
    let bytes_of = |sequences| block.saturating_mul(room_for(sequences, options.max_tokens) as u64);
    let Some(given) = options.kv_bytes else {
        let bytes = bytes_of(options.max_concurrency);
        if bytes > isize::MAX as u64 {
            return refuse(format!(
                "a KV cache of {bytes} bytes cannot be had; lower the concurrency or the longest sequence, or \
                 set --kv-bytes"
            ));
        }
        return Ok(room_for(options.max_concurrency, options.max_tokens));
    };
    if given > isize::MAX as u64 {
        return refuse(format!("a KV cache of {given} bytes (--kv-bytes) cannot be had; set fewer"));
    }
    let blocks = usize::try_from(given / block).unwrap_or(usize::MAX).min(u32::MAX as usize);
    if blocks <= blocks_for(options.max_tokens) {
        return refuse(format!(
            "{given} bytes of KV cache (--kv-bytes) do not hold one sequence of {} tokens; that takes at least {}, or \
             set a shorter longest sequence (--max-tokens)",
            options.max_tokens,
            bytes_of(1)
        ));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vlm_catalog::architecture::describe;
    use vlm_catalog::checkpoint::{CheckpointSize, Head};
    use vlm_catalog::footprint::{Device, Model, Wish, fit, suggest};
    use vlm_catalog::gpu::GpuTypes;
    use vlm_catalog::kv_cache::KvCacheDtype;

    use super::*;
    use crate::precision::Precision;

    /// In the smallest memory that a model fits there is one sequence of full length to the byte.
    #[test]
    fn the_bytes_that_a_fit_leaves_for_keys_and_values_are_enough_and_none_too_many() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava/model/config.json");
        let config = describe(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).unwrap();
        let size = CheckpointSize::of(&config, Head::Stored);
        let model = Model { config: &config, size: &size };
        let kept = [KvCacheDtype::Auto, KvCacheDtype::Int8];
        let cases = [17_u64, 512, 1000, 1024].into_iter().flat_map(|tokens| kept.map(|kept| (tokens, kept)));
        for (tokens, kv_cache_dtype) in cases {
            let wish = Wish { max_tokens: Some(tokens), max_concurrency: Some(4), kv_cache_dtype, ..Wish::default() };
            let none = Device::Cpu { memory_bytes: Some(1) };
            let memory_bytes = suggest(model, wish, none, &GpuTypes::default()).memory_bytes;
            let fit = fit(model, wish, Device::Cpu { memory_bytes: Some(memory_bytes) }).unwrap();
            let blocks = |kv_bytes| {
                let options = EngineOptions {
                    max_tokens: tokens as usize,
                    max_concurrency: 4,
                    max_queue: 0,
                    kv_bytes: Some(kv_bytes),
                    encoder_cache_bytes: 0,
                    precision: Precision { kv_cache: kv_cache_dtype, ..Precision::F32 },
                };
                kv_blocks(&config.text, &options)
            };
            assert_eq!(fit.full_length_sequences, 1, "{fit:?}");
            assert_eq!(blocks(fit.cache_bytes()).unwrap(), room_for(1, tokens as usize), "{tokens}");
            let spare = fit.kv_bytes - fit.breakdown.kv_bytes;
            assert!(blocks(fit.cache_bytes() - spare - 1).is_err(), "{tokens}: the spare block is needed");
        }
    }
}

//! The engine: a handle that any thread may hold, and one thread that owns model and KV cache.
//! `submit` hands a request over and returns its stream of events; the scheduler decides when it
//! runs; dropping the stream cancels it.

mod executor;
mod rate;
mod request;
mod sampling;
mod scheduler;
mod shared;
mod steps;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

pub use request::{EngineOptions, Event, Failure, FinishReason, Request, Sampling, Snapshot, SubmitError, TokenStream};
pub use sampling::{NotFinite, choose};
pub use steps::{CHUNK, Steps};

use candle_core::Device;
use vlm_catalog::architecture::TextConfig;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::models::VisionLanguage;
use executor::{Executor, ModelExecutor};
use scheduler::Limits;
use shared::Shared;
use worker::{Submission, Worker};

/// Prompt tokens read in one step while other sequences decode.
const CHUNK_WHILE_DECODING: usize = 128;

/// Handle of the engine thread. The thread ends after the last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    submissions: Sender<Submission>,
    shared: Arc<Shared>,
    max_tokens: usize,
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
        slots(&checkpoint.config().text, &options)?;
        let model = VisionLanguage::load_on(checkpoint, options.max_tokens, options.precision, device)?;
        Self::over(model, options)
    }

    /// Like [`Engine::start`], over a model that is loaded for as many positions as `options` asks for.
    ///
    /// # Errors
    /// Options that do not fit the model, a model that does not run.
    pub fn over(model: VisionLanguage, options: EngineOptions) -> Result<Self, CheckpointError> {
        let slots = slots(&model.config().text, &options)?;
        let start = |e: candle_core::Error| CheckpointError::Start(e.to_string());
        // A broken model fails here and not in the first request.
        if !model.warm_up().map_err(start)? {
            return Err(CheckpointError::NotFinite);
        }
        let executor = ModelExecutor::new(model, slots, options.max_tokens).map_err(start)?;
        Self::spawn(executor, slots, &options)
    }

    fn spawn(
        executor: impl Executor + 'static,
        slots: usize,
        options: &EngineOptions,
    ) -> Result<Self, CheckpointError> {
        let shared = Arc::new(Shared::new(slots, options.max_queue));
        let limits = Limits {
            slots,
            kv_tokens: slots * options.max_tokens,
            chunk_while_decoding: CHUNK_WHILE_DECODING,
            chunk: CHUNK,
        };
        let worker = Worker::new(executor, limits, Arc::clone(&shared));
        let (submissions, received) = channel();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run(&received))
            .map_err(|e| CheckpointError::Start(e.to_string()))?;
        Ok(Self { submissions, shared, max_tokens: options.max_tokens })
    }

    /// Accepts a request or says why not. Never blocks on the model.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let prompt_tokens = request.prompt.ids.len();
        if prompt_tokens == 0 {
            return Err(SubmitError::Empty);
        }
        let request = Request { max_new_tokens: request.max_new_tokens.max(1), ..request };
        let tokens = prompt_tokens.saturating_add(request.max_new_tokens);
        if tokens > self.max_tokens {
            return Err(SubmitError::TooLong {
                text: request.prompt.text_tokens(),
                images: request.prompt.image_tokens(),
                answer: request.max_new_tokens,
                limit: self.max_tokens,
            });
        }
        let (events, stream) = TokenStream::new();
        self.shared.accept(|| self.submissions.send(Submission { request, events }).is_ok())?;
        Ok(stream)
    }

    /// What runs and waits now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Refuses new requests and finishes the accepted ones.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Resolves when nothing runs or waits.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }
}

/// How many sequences of full length the KV cache gets.
fn slots(text: &TextConfig, options: &EngineOptions) -> Result<usize, CheckpointError> {
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
    let sequence =
        text.kv_bytes_per_token(options.precision.dtype.size_in_bytes()).saturating_mul(options.max_tokens as u64);
    let bytes = sequence.saturating_mul(options.max_concurrency as u64);
    if bytes > isize::MAX as u64 {
        return refuse(format!(
            "a KV cache of {bytes} bytes cannot be had; lower the concurrency or the longest sequence"
        ));
    }
    let Some(given) = options.kv_bytes else { return Ok(options.max_concurrency) };
    match given / sequence {
        0 => refuse(format!(
            "{given} bytes of KV cache are less than one sequence of {} tokens needs ({sequence})",
            options.max_tokens
        )),
        slots => Ok(options.max_concurrency.min(usize::try_from(slots).unwrap_or(usize::MAX))),
    }
}

//! What goes into the engine and what comes out: requests, events, refusals, options.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;
use tokio::sync::mpsc;
use vlm_catalog::footprint::PICTURE_CACHE_BYTES;

use super::scheduler::Counts;

use crate::precision::Precision;
use crate::prompt::Prompt;

/// Sizes fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Longest sequence, prompt and answer together, in tokens.
    pub max_tokens: usize,
    /// Sequences computed at the same time.
    pub max_concurrency: usize,
    /// Requests that may wait beyond those that run.
    pub max_queue: usize,
    /// Most bytes of the KV cache; by default room for `max_concurrency` sequences of full length.
    pub kv_bytes: Option<u64>,
    /// Most bytes of pictures' rows that are kept for the next request with the same picture.
    pub encoder_cache_bytes: u64,
    /// In which number formats the model is held.
    pub precision: Precision,
}

/// Bytes of pictures' rows that are kept, where nothing else is said: as many as a fit counts.
pub const ENCODER_CACHE_BYTES: u64 = PICTURE_CACHE_BYTES;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Smallest set of tokens whose probability reaches this; 1 is all.
    pub top_p: f32,
    /// Same seed, same answer; random when absent.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: None }
    }
}

/// One sequence to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// Ids and pictures.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to generate; at least 1 is generated.
    pub max_new_tokens: usize,
    /// Ids that end the answer and are not part of it. Empty: never stop early.
    pub stop_ids: Vec<u32>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// The token limit was reached.
    Length,
}

/// One step of an answer. `Finished` or `Failed` is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next token.
    Token {
        /// Its id.
        id: u32,
    },
    /// The answer is complete.
    Finished(FinishReason),
    /// The answer cannot be continued.
    Failed(Failure),
}

/// Why an answer cannot be continued, as a sentence for the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The weights, or what was computed with them, gave NaN or an infinity: no text is better than nonsense.
    #[error("the model produced numbers that are not finite; the answer cannot be continued")]
    NotFinite,
    /// A step could not be computed.
    #[error("{0}")]
    Step(String),
    /// The engine thread is gone.
    #[error("the engine has stopped after a fault; the server will restart")]
    Stopped,
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Step(error.to_string())
    }
}

/// The events of one request. Dropping it cancels the sequence within one step.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::UnboundedReceiver<Event>,
    cached_tokens: Arc<AtomicUsize>,
}

/// The other end of a [`TokenStream`].
#[derive(Debug)]
pub(super) struct EventSink {
    events: mpsc::UnboundedSender<Event>,
    cached_tokens: Arc<AtomicUsize>,
}

impl TokenStream {
    pub(super) fn new() -> (EventSink, Self) {
        let (sender, events) = mpsc::unbounded_channel();
        let cached_tokens = Arc::<AtomicUsize>::default();
        (EventSink { events: sender, cached_tokens: Arc::clone(&cached_tokens) }, Self { events, cached_tokens })
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Tokens of the prompt that were cached already; known with the first event.
    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens.load(Ordering::Relaxed)
    }
}

impl EventSink {
    /// Sends an event; `None` when nobody listens.
    pub fn send(&self, event: Event) -> Option<()> {
        self.events.send(event).ok()
    }

    /// Whether nobody listens.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// So many tokens of the prompt were cached. To be called before the first event.
    pub fn found(&self, cached_tokens: usize) {
        self.cached_tokens.store(cached_tokens, Ordering::Relaxed);
    }
}

/// Why a request was not accepted, as a sentence for the client.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// Try again later.
    #[error("the queue is full; retry in {retry_after_seconds} s")]
    QueueFull {
        /// Estimated from how fast requests complete.
        retry_after_seconds: u64,
    },
    /// Can never run here.
    #[error(
        "{text} tokens of text, {images} of images and an answer of {answer} are more than the limit of {limit}; \
         shorten the messages, send fewer images or lower max_tokens"
    )]
    TooLong {
        /// Tokens of the prompt's text.
        text: usize,
        /// Tokens of the prompt's images.
        images: usize,
        /// Longest answer in tokens.
        answer: usize,
        /// Longest sequence.
        limit: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty; send at least one token")]
    Empty,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
    /// The engine thread ended after a fault.
    #[error("the engine has stopped after a fault")]
    Stopped,
}

/// The engine's state for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Sequences being computed.
    pub running: usize,
    /// Accepted sequences that do not run yet.
    pub waiting: usize,
    /// Sequences that can run at the same time.
    pub capacity: usize,
    /// Share of the KV cache's blocks in use, 0 to 1; blocks that are only kept to be found again are not.
    pub kv_usage: f64,
    /// What the scheduler did since the start.
    pub counts: Counts,
    /// Requests completed per second lately.
    pub completions_per_second: Option<f64>,
    /// The engine thread ended after a fault.
    pub stopped: bool,
}

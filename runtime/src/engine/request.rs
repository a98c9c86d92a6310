//! What goes into the engine and what comes out: requests, events, refusals, options.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;
use vlm_catalog::footprint::PICTURE_CACHE_BYTES;

use super::logprobs::Logprobs;
use super::scheduler::Counts;
use super::steering::Steering;

use crate::device::NO_MEMORY;
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
    /// So many of the likeliest tokens; 0 is all.
    pub top_k: u32,
    /// Tokens with at least this share of the likeliest one's probability; 0 is all.
    pub min_p: f32,
    /// Same seed, same answer; random when absent.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: None }
    }
}

/// One sequence to generate.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Ids and pictures.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What changes the logits before; nothing in most requests.
    pub steering: Steering,
    /// Tell the probabilities of the tokens, and of so many of the likeliest in their places.
    pub logprobs: Option<usize>,
    /// Most tokens to generate; at least 1 is generated.
    pub max_new_tokens: usize,
    /// Ids that end the answer and are not part of it. Empty: never stop early.
    pub stop_ids: Vec<u32>,
    /// Tokens of the answer that were generated already. The sampler goes on as if it had chosen them; they count as
    /// part of `max_new_tokens` and are not sent again.
    pub generated: Vec<u32>,
}

impl Request {
    /// The same for one of several answers.
    pub(super) fn starting(mut self, start: AnswerStart) -> Self {
        self.sampling.seed = self.sampling.seed.map(|seed| derived(seed, start.number));
        self.generated = start.generated;
        self
    }
}

/// The seed of another answer to the same request.
fn derived(seed: u64, number: u64) -> u64 {
    seed.wrapping_add(number.wrapping_mul(0xD1B5_4A32_D192_ED03))
}

/// Where one of the answers to a request begins.
#[derive(Clone, Debug, Default)]
pub struct AnswerStart {
    /// Its place among them, from which its seed follows.
    pub number: u64,
    /// Tokens of it that were generated elsewhere.
    pub generated: Vec<u32>,
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
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next token.
    Token {
        /// Its id.
        id: u32,
        /// How likely it was, where the request asks.
        logprobs: Option<Box<Logprobs>>,
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
    /// The form that the answer must have became too complex to follow.
    #[error("the form of the answer cannot be followed: {0}; simplify the schema")]
    Form(String),
    /// The engine thread is gone.
    #[error("the engine has stopped after a fault; the server will restart")]
    Stopped,
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        let said = error.to_string();
        if !said.contains(NO_MEMORY) {
            return Self::Step(said);
        }
        tracing::error!(%error, "a step has no memory");
        Self::Step(
            "the GPU has no memory left for this step; retry, or send a shorter prompt or fewer pictures".to_owned(),
        )
    }
}

/// The events of one request. Dropping it cancels the sequence within one step.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::UnboundedReceiver<Event>,
    start: Arc<Start>,
}

/// What is known of a sequence once it runs.
#[derive(Debug, Default)]
struct Start {
    cached_tokens: AtomicUsize,
    waited_micros: AtomicU64,
}

/// The other end of a [`TokenStream`].
#[derive(Debug)]
pub(super) struct EventSink {
    events: mpsc::UnboundedSender<Event>,
    accepted: Instant,
    start: Arc<Start>,
}

impl TokenStream {
    pub(super) fn new() -> (EventSink, Self) {
        let (sender, events) = mpsc::unbounded_channel();
        let start = Arc::<Start>::default();
        (EventSink { events: sender, accepted: Instant::now(), start: Arc::clone(&start) }, Self { events, start })
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// As [`Self::next`], for whoever waits for several things.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    /// Tokens of the prompt that were cached already; known with the first event.
    pub fn cached_tokens(&self) -> usize {
        self.start.cached_tokens.load(Ordering::Relaxed)
    }

    /// Time from its acceptance until it ran; known with the first event.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.start.waited_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
impl TokenStream {
    /// A stream whose events are sent by a test.
    pub(crate) fn told_by_test() -> (mpsc::UnboundedSender<Event>, Self) {
        let (sender, events) = mpsc::unbounded_channel();
        (sender, Self { events, start: Arc::default() })
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

    /// It runs from now on; so many tokens of the prompt were cached. To be called before the first event.
    pub fn started(&self, cached_tokens: usize) {
        self.start.cached_tokens.store(cached_tokens, Ordering::Relaxed);
        self.start.waited_micros.store(self.accepted.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// Why the engine thread ended although requests may still come, as a sentence without full stop.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Stop {
    /// By a bug.
    #[error("the engine thread ended unexpectedly")]
    Fault,
    /// The device is gone for good: no step of this process can succeed any more.
    #[error("the GPU failed while it computed, and nothing more can be computed in this process")]
    DeviceLost,
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
    /// Bytes of rows of pictures that are there or under way, those that are only kept among them.
    pub picture_bytes: u64,
    /// What the scheduler did since the start.
    pub counts: Counts,
    /// Requests completed per second lately.
    pub completions_per_second: Option<f64>,
    /// Seconds until a place is free for one more request, from how fast they complete: 1 to 60.
    pub retry_after_seconds: u64,
    /// The engine thread ended after a fault.
    pub stopped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_gone_is_told_as_such_and_everything_else_as_it_is() {
        let failure = |said: String| Failure::from(candle_core::Error::Msg(said)).to_string();
        let gone = failure(format!("DriverError({NO_MEMORY}, \"out of memory\")"));
        assert!(gone.contains("no memory left") && gone.contains("retry") && !gone.contains("CUDA"), "{gone}");
        assert_eq!(failure("no row 3".to_owned()), "no row 3");
    }
}

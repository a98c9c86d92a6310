//! One answer in the making: tokens of the engine into text, stop strings, counts and times.
//! Dropping it, as happens when the client goes away, cancels the sequence.

use std::sync::Arc;
use std::time::Instant;

use vlm_contract::continuation::{Ended, StreamState};
use vlm_contract::openai::chat::{PromptTokensDetails, Usage};

use super::admission::Place;
use super::app::App;
use super::error::ApiError;
use super::stop::{Step, StopStrings};
use crate::engine::{Event, Failure, FinishReason, TokenStream};
use crate::metrics::Outcome;
use crate::processor::Detokenizer;

/// What an answer brings next.
#[derive(Debug)]
pub enum Piece {
    /// Text that may be sent; never empty.
    Text(String),
    /// The answer is complete, for this reason.
    End(&'static str),
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The engine works on it.
    Running,
    /// Its last text is known; the end is not yet reported.
    Complete(Outcome),
    /// Its end, or its failure, was reported.
    Reported,
}

/// What an answer starts from.
pub struct Begin {
    /// Events of the engine.
    pub tokens: TokenStream,
    /// For this answer.
    pub detokenizer: Detokenizer,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of the sampler.
    pub seed: u64,
    /// Tokens that were generated elsewhere; their text was sent there.
    pub generated: Vec<u32>,
    /// Why the answer has ended elsewhere, if it has: there is no more text.
    pub ended: Option<Ended>,
    /// When the request arrived.
    pub arrived: Instant,
    /// Its place among the admitted requests.
    pub place: Place,
    /// Id under which the log speaks of it.
    pub id: String,
}

/// An answer in the making.
pub struct Answer {
    app: Arc<App>,
    tokens: Option<TokenStream>,
    detokenizer: Detokenizer,
    stop: StopStrings,
    progress: Progress,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    seed: u64,
    /// Tokens since [`Answer::take_state`] was last called.
    fresh: Vec<u32>,
    arrived: Instant,
    last_token: Option<Instant>,
    id: String,
    _place: Place,
}

impl Answer {
    /// Begins an answer that the engine has accepted.
    pub fn new(app: Arc<App>, begin: Begin) -> Self {
        app.metrics.prompt(begin.prompt_tokens);
        let mut answer = Self {
            app,
            tokens: Some(begin.tokens),
            detokenizer: begin.detokenizer,
            stop: StopStrings::new(begin.stop),
            progress: Progress::Running,
            prompt_tokens: begin.prompt_tokens,
            cached_tokens: 0,
            completion_tokens: begin.generated.len(),
            seed: begin.seed,
            fresh: Vec::new(),
            arrived: begin.arrived,
            last_token: None,
            id: begin.id,
            _place: begin.place,
        };
        for token in begin.generated {
            let text = answer.detokenizer.push(token);
            if let Step::Stopped(_) = answer.stop.push(&text) {
                answer.tokens = None;
                answer.progress = Progress::Complete(Outcome::Stop);
                break;
            }
        }
        if let Some(ended) = begin.ended {
            answer.tokens = None;
            answer.progress = Progress::Complete(match ended {
                Ended::Stop => Outcome::Stop,
                Ended::Length => Outcome::Length,
            });
        }
        answer
    }

    /// What continues the answer elsewhere from here on, together with what this gave before.
    pub fn take_state(&mut self) -> StreamState {
        let ended = match self.progress {
            Progress::Complete(Outcome::Stop) => Some(Ended::Stop),
            Progress::Complete(Outcome::Length) => Some(Ended::Length),
            _ => None,
        };
        StreamState { seed: self.seed, tokens: std::mem::take(&mut self.fresh), ended }
    }

    /// The next piece. After [`Piece::End`] or an error there is none.
    pub async fn next(&mut self) -> Option<Result<Piece, ApiError>> {
        loop {
            let Some(tokens) = &mut self.tokens else {
                return self.end();
            };
            let event = tokio::select! {
                biased;
                () = self.app.lifecycle.aborted().cancelled() => {
                    return Some(Err(self.fail(ApiError::Aborted)));
                }
                event = tokens.next() => event,
            };
            self.cached_tokens = tokens.cached_tokens();
            let step = match event {
                Some(Event::Token { id }) => {
                    self.count_token(id);
                    let text = self.detokenizer.push(id);
                    self.stop.push(&text)
                }
                Some(Event::Finished(reason)) => self.finish(reason),
                Some(Event::Failed(why)) => return Some(Err(self.fail(ApiError::Engine(why)))),
                None => {
                    let why = Failure::Step("it ended unexpectedly".into());
                    return Some(Err(self.fail(ApiError::Engine(why))));
                }
            };
            let text = match step {
                Step::More(text) => text,
                Step::Stopped(text) => {
                    // The sequence is of no more use: its blocks are free at the next step.
                    self.tokens = None;
                    self.progress = Progress::Complete(Outcome::Stop);
                    text
                }
            };
            if !text.is_empty() {
                return Some(Ok(Piece::Text(text)));
            }
        }
    }

    /// Tokens used until now.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: self.cached_tokens },
        }
    }

    /// The engine is done: what was held back by detokenizer and stop strings is sent now.
    fn finish(&mut self, reason: FinishReason) -> Step {
        self.tokens = None;
        self.progress = Progress::Complete(match reason {
            FinishReason::Stop => Outcome::Stop,
            FinishReason::Length => Outcome::Length,
        });
        let tail = self.detokenizer.finish();
        match self.stop.push(&tail) {
            Step::More(text) => Step::More(text + &self.stop.finish()),
            stopped @ Step::Stopped(_) => stopped,
        }
    }

    /// Reports the end once.
    fn end(&mut self) -> Option<Result<Piece, ApiError>> {
        let Progress::Complete(outcome) = self.progress else {
            return None;
        };
        self.conclude(outcome);
        Some(Ok(Piece::End(outcome.label())))
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.tokens = None;
        let not_finite = matches!(error, ApiError::Engine(Failure::NotFinite));
        self.conclude(if not_finite { Outcome::NotFinite } else { Outcome::Error });
        if self.app.snapshot().is_some_and(|now| now.stopped) {
            self.app.lifecycle.engine_lost().cancel();
        }
        error
    }

    fn count_token(&mut self, id: u32) {
        let now = Instant::now();
        self.fresh.push(id);
        self.completion_tokens += 1;
        match self.last_token.replace(now) {
            None => {
                let waited = self.tokens.as_ref().map(TokenStream::waited).unwrap_or_default();
                self.app.metrics.first_token(now - self.arrived, waited);
            }
            Some(last) => self.app.metrics.next_token(now - last),
        }
    }

    fn conclude(&mut self, outcome: Outcome) {
        self.progress = Progress::Reported;
        self.app.metrics.finished(outcome);
        tracing::info!(
            request_id = self.id,
            outcome = outcome.label(),
            prompt_tokens = self.prompt_tokens,
            cached_tokens = self.cached_tokens,
            completion_tokens = self.completion_tokens,
            milliseconds = self.arrived.elapsed().as_millis() as u64,
            "answer ended"
        );
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.progress != Progress::Reported {
            self.conclude(Outcome::Cancelled);
        }
    }
}

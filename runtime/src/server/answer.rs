//! One answer in the making: tokens of the engine into text, stop strings, calls of functions, counts and times.
//! Dropping it, as happens when the client goes away, cancels the sequence.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio_util::sync::WaitForCancellationFutureOwned;
use vlm_contract::continuation::{AnswerState, Ended, StreamState};
use vlm_contract::openai::usage::{PromptTokensDetails, Usage};

use super::admission::Place;
use super::app::App;
use super::calls::{CallParser, Said};
use super::error::ApiError;
use super::said_tokens::{SaidToken, SaidTokens, told};
use super::stop::{Step, StopStrings};
use crate::engine::{Event, Failure, FinishReason, TokenStream};
use crate::metrics::Outcome;
use crate::processor::{Detokenizer, Processor};

/// What an answer brings next.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text that may be sent.
    Text {
        /// The text; empty only where there are tokens.
        text: String,
        /// The tokens whose text begins in it, where asked for.
        tokens: Vec<SaidToken>,
    },
    /// A call of a function.
    Call {
        /// The function.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
    /// The answer is complete.
    End {
        /// Why.
        reason: &'static str,
        /// Tokens used by this answer alone.
        usage: Usage,
    },
}

/// Why an answer that calls functions ends.
const TOOL_CALLS: &str = "tool_calls";

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The engine works on it.
    Running,
    /// Its last text is known; the end is not yet reported.
    Complete(Outcome),
    /// Its end, or its failure, was reported.
    Reported(Outcome),
}

/// What an answer starts from.
pub struct Begin {
    /// Events of the engine; none where the answer has ended elsewhere.
    pub tokens: Option<TokenStream>,
    /// Of the model.
    pub processor: Arc<Processor>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// So many tokens come before a stop string has an effect.
    pub min_tokens: usize,
    /// Whether calls of functions are taken out of the text.
    pub calls: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How far it has come elsewhere.
    pub before: AnswerState,
    /// When the request arrived.
    pub arrived: Instant,
    /// Its request's place among the admitted ones.
    pub place: Arc<Place>,
    /// Id under which the log speaks of it.
    pub id: String,
}

/// An answer in the making.
pub struct Answer {
    app: Arc<App>,
    /// Ready when running answers must end.
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    processor: Arc<Processor>,
    tokens: Option<TokenStream>,
    detokenizer: Detokenizer,
    stop: StopStrings,
    min_tokens: usize,
    calls: Option<CallParser>,
    said: SaidTokens,
    /// Bytes of text from the detokenizer, and of text sent.
    made: usize,
    /// Characters from the detokenizer.
    made_characters: usize,
    sent: usize,
    ready: VecDeque<Piece>,
    progress: Progress,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    /// Tokens since [`Answer::state`] was last called.
    fresh: Vec<u32>,
    /// What was sent elsewhere.
    before: Vec<Piece>,
    arrived: Instant,
    last_token: Option<Instant>,
    id: String,
    _place: Arc<Place>,
}

impl Answer {
    /// Begins an answer that the engine has accepted.
    pub fn new(app: Arc<App>, begin: Begin) -> Self {
        let mut answer = Self {
            aborted: Box::pin(app.lifecycle.aborted().clone().cancelled_owned()),
            app,
            tokens: begin.tokens,
            detokenizer: begin.processor.detokenizer(),
            processor: begin.processor,
            stop: StopStrings::new(begin.stop),
            min_tokens: begin.min_tokens,
            calls: begin.calls.then(CallParser::default),
            said: SaidTokens::default(),
            made: 0,
            made_characters: 0,
            sent: 0,
            ready: VecDeque::new(),
            progress: Progress::Running,
            prompt_tokens: begin.prompt_tokens,
            cached_tokens: 0,
            completion_tokens: 0,
            fresh: Vec::new(),
            before: Vec::new(),
            arrived: begin.arrived,
            last_token: None,
            id: begin.id,
            _place: begin.place,
        };
        answer.repeat(begin.before);
        answer
    }

    /// Goes to where another server was, and says again what that has sent.
    fn repeat(&mut self, before: AnswerState) {
        let sent = before.tokens.len().saturating_sub(before.unsent.len());
        let mut unsent = before.unsent.into_iter();
        for (number, id) in before.tokens.into_iter().enumerate() {
            if self.progress != Progress::Running {
                break;
            }
            self.completion_tokens += 1;
            if number >= sent
                && let Some(token) = unsent.next()
            {
                self.said.push(self.made, SaidToken { at: self.made_characters, token });
            }
            let text = self.detokenizer.push(id);
            self.add(&text);
        }
        if let Some(ended) = before.ended.filter(|_| self.progress == Progress::Running) {
            self.finish(match ended {
                Ended::Stop => FinishReason::Stop,
                Ended::Length => FinishReason::Length,
            });
        }
        self.before.extend(self.ready.drain(..));
        if let (true, Progress::Complete(outcome)) = (before.closed, self.progress) {
            self.before.push(self.last_piece(outcome));
            self.progress = Progress::Reported(outcome);
        }
    }

    /// What was sent elsewhere.
    pub fn take_before(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.before)
    }

    /// Whether a piece is ready that belongs to the same tokens as the last.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What continues the answer, which is its stream's `answer`th, elsewhere once all pieces until now were sent,
    /// together with what this gave before. None while another piece belongs to the same tokens.
    pub fn state(&mut self, answer: usize) -> Option<StreamState> {
        if self.has_more() {
            return None;
        }
        let ended = match self.progress {
            Progress::Complete(Outcome::Stop) | Progress::Reported(Outcome::Stop) => Some(Ended::Stop),
            Progress::Complete(Outcome::Length) | Progress::Reported(Outcome::Length) => Some(Ended::Length),
            _ => None,
        };
        let closed = matches!(self.progress, Progress::Reported(_));
        let (tokens, unsent) = (std::mem::take(&mut self.fresh), self.said.unsent());
        Some(StreamState { answer, tokens, ended, closed, unsent, last: false })
    }

    /// The next piece. After [`Piece::End`] or an error there is none.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, ApiError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(tokens) = &mut self.tokens else {
                return Poll::Ready(self.end());
            };
            if self.aborted.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(self.fail(ApiError::Aborted))));
            }
            let event = ready!(tokens.poll_next(context));
            self.cached_tokens = tokens.cached_tokens();
            match event {
                Some(Event::Token { id, logprobs }) => {
                    self.count_token(id);
                    if let Some(logprobs) = logprobs {
                        let token = told(&self.processor, id, &logprobs);
                        self.said.push(self.made, SaidToken { at: self.made_characters, token });
                    }
                    let text = self.detokenizer.push(id);
                    self.add(&text);
                }
                Some(Event::Finished(reason)) => self.finish(reason),
                Some(Event::Failed(why)) => return Poll::Ready(Some(Err(self.fail(ApiError::Engine(why))))),
                None => {
                    let why = Failure::Step("it ended unexpectedly".into());
                    return Poll::Ready(Some(Err(self.fail(ApiError::Engine(why)))));
                }
            }
        }
    }

    /// Takes text in; what may be sent of it is ready then.
    fn add(&mut self, text: &str) {
        self.made += text.len();
        self.made_characters += text.chars().count();
        let step =
            if self.completion_tokens <= self.min_tokens { Step::More(text.to_owned()) } else { self.stop.push(text) };
        match step {
            Step::More(text) => self.send(&text),
            Step::Stopped(text) => {
                // The sequence is of no more use: its blocks are free at the next step.
                self.tokens = None;
                self.progress = Progress::Complete(Outcome::Stop);
                self.send(&text);
                self.said.forget();
                self.say_rest();
            }
        }
    }

    /// The engine is done: what was held back by detokenizer and stop strings is sent now.
    fn finish(&mut self, reason: FinishReason) {
        self.tokens = None;
        let tail = self.detokenizer.finish();
        self.progress = Progress::Complete(match reason {
            FinishReason::Stop => Outcome::Stop,
            FinishReason::Length => Outcome::Length,
        });
        self.made += tail.len();
        match self.stop.push(&tail) {
            Step::More(text) => {
                let held = self.stop.finish();
                self.send(&(text + &held));
            }
            Step::Stopped(text) => {
                self.progress = Progress::Complete(Outcome::Stop);
                self.send(&text);
                self.said.forget();
            }
        }
        self.say_rest();
    }

    fn send(&mut self, text: &str) {
        self.sent += text.len();
        match &mut self.calls {
            None if text.is_empty() => {}
            None => {
                let tokens = self.said.take(self.sent);
                self.ready.push_back(Piece::Text { text: text.to_owned(), tokens });
            }
            Some(calls) => {
                let said = calls.push(text);
                self.say(said);
            }
        }
    }

    fn say(&mut self, said: Vec<Said>) {
        for said in said {
            let tokens = self.said.take(self.sent);
            match said {
                Said::Text(text) => self.ready.push_back(Piece::Text { text, tokens }),
                Said::Call { name, arguments } => {
                    if !tokens.is_empty() {
                        self.ready.push_back(Piece::Text { text: String::new(), tokens });
                    }
                    self.ready.push_back(Piece::Call { name, arguments });
                }
            }
        }
    }

    /// What is left when no more text comes.
    fn say_rest(&mut self) {
        if let Some(calls) = &mut self.calls {
            let said = calls.finish();
            self.say(said);
        }
        let tokens = self.said.finish();
        if !tokens.is_empty() {
            self.ready.push_back(Piece::Text { text: String::new(), tokens });
        }
    }

    /// Reports the end once.
    fn end(&mut self) -> Option<Result<Piece, ApiError>> {
        let Progress::Complete(outcome) = self.progress else {
            return None;
        };
        self.conclude(outcome);
        Some(Ok(self.last_piece(outcome)))
    }

    fn last_piece(&self, outcome: Outcome) -> Piece {
        let called = self.calls.as_ref().is_some_and(CallParser::any);
        let reason = if called && outcome == Outcome::Stop { TOOL_CALLS } else { outcome.label() };
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: self.cached_tokens },
        };
        Piece::End { reason, usage }
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.tokens = None;
        let not_finite = matches!(error, ApiError::Engine(Failure::NotFinite));
        self.conclude(if not_finite { Outcome::NotFinite } else { Outcome::Error });
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
        self.progress = Progress::Reported(outcome);
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
        if !matches!(self.progress, Progress::Reported(_)) {
            self.conclude(Outcome::Cancelled);
        }
    }
}

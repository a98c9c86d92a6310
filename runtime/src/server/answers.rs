//! All answers to one request, side by side, and how an endpoint writes them: in events or as one body.

use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::response::Response;
use vlm_contract::continuation::StreamState;
use vlm_contract::openai::usage::Usage;

use super::answer::{Answer, Piece};
use super::error::ApiError;
use super::events::{Event, event};
use super::said_tokens::SaidToken;

/// Answers in the making. Dropping them cancels all.
pub struct Answers {
    /// Nothing where one is over.
    running: Vec<Option<Answer>>,
    /// Whose turn it is to be looked at first.
    turn: usize,
    /// Answers to each prompt.
    each: usize,
    /// Calls of functions in each answer that were sent elsewhere.
    called: Vec<usize>,
    usage: Usage,
    /// What continues the one answer elsewhere, since it was last told.
    state: Option<StreamState>,
}

/// An answer that is complete.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Its text, without calls.
    pub text: String,
    /// Its tokens, where asked for.
    pub tokens: Vec<SaidToken>,
    /// Its calls: id, function, arguments.
    pub calls: Vec<(String, String, String)>,
    /// Why it ended.
    pub reason: &'static str,
}

/// How an endpoint writes answers.
pub trait Voice: Send + Unpin + 'static {
    /// All of them in one body.
    fn whole(self, answers: Vec<Whole>, usage: Usage) -> Response;
    /// What a stream begins with.
    fn begin(&mut self) -> Vec<Event>;
    /// What comes next of the answer at `index`.
    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Event>;
    /// What a stream ends with.
    fn end(&mut self, usage: Usage) -> Vec<Event>;
    /// What it ends with when it cannot be continued.
    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![event(&error.body())]
    }
}

impl Answers {
    /// Those to one prompt after another, `each` to a prompt.
    pub fn new(answers: Vec<Answer>, each: usize) -> Self {
        let called = answers.iter().map(Answer::called).collect();
        let running = answers.into_iter().map(Some).collect();
        Self { running, turn: 0, each: each.max(1), called, usage: Usage::default(), state: None }
    }

    /// With each event, where there is one answer, goes what continues it elsewhere.
    #[must_use]
    pub fn with_state(mut self) -> Self {
        if let [Some(answer)] = &self.running[..] {
            self.state = Some(StreamState { seed: answer.seed(), ..StreamState::default() });
        }
        self
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Calls of functions in each that were sent elsewhere.
    pub fn called(&self) -> &[usize] {
        &self.called
    }

    /// The next piece of any, in turns. An error is the last.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(usize, Piece), ApiError>>> {
        let (count, mut waiting) = (self.running.len(), false);
        for index in (self.turn..count).chain(0..self.turn) {
            let Some(Some(answer)) = self.running.get_mut(index) else { continue };
            match answer.poll_next(context) {
                Poll::Pending => waiting = true,
                Poll::Ready(None) => self.running[index] = None,
                Poll::Ready(Some(piece)) => {
                    self.turn = (index + 1) % count;
                    return Poll::Ready(Some(self.took(index, piece)));
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Keeps account of a piece.
    fn took(&mut self, index: usize, piece: Result<Piece, ApiError>) -> Result<(usize, Piece), ApiError> {
        if let (Some(all), Some(Some(answer))) = (&mut self.state, self.running.get_mut(index)) {
            let new = answer.take_state();
            all.tokens.extend(new.tokens);
            all.ended = new.ended.or(all.ended);
        }
        match &piece {
            Ok(Piece::End { usage, .. }) => self.used(index, usage),
            Ok(_) => {}
            Err(_) => self.running.clear(),
        }
        piece.map(|piece| (index, piece))
    }

    /// What continues the stream once all until now was sent, together with what this gave before; where it is told.
    pub fn take_state(&mut self) -> Option<String> {
        let state = self.state.as_mut()?;
        let told = serde_json::to_string(state).unwrap_or_default();
        state.tokens.clear();
        Some(told)
    }

    /// A prompt counts once, however many answers it gets.
    fn used(&mut self, index: usize, usage: &Usage) {
        if index.is_multiple_of(self.each) {
            self.usage.prompt_tokens += usage.prompt_tokens;
            self.usage.prompt_tokens_details.cached_tokens += usage.prompt_tokens_details.cached_tokens;
        }
        self.usage.completion_tokens += usage.completion_tokens;
        self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
    }

    /// Tokens used by the answers that are complete.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Collects all and writes them.
    pub async fn whole(mut self, voice: impl Voice) -> Result<Response, ApiError> {
        let mut wholes = vec![Whole::default(); self.count()];
        while let Some(next) = poll_fn(|context| self.poll_next(context)).await {
            let (index, piece) = next?;
            let Some(whole) = wholes.get_mut(index) else { continue };
            match piece {
                Piece::Text { text, tokens } => {
                    whole.text.push_str(&text);
                    whole.tokens.extend(tokens);
                }
                Piece::Call { id, name, arguments } => whole.calls.push((id, name, arguments)),
                Piece::End { reason, .. } => whole.reason = reason,
            }
        }
        Ok(voice.whole(wholes, self.usage))
    }
}

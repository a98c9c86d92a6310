//! All answers to one request, side by side, and how an endpoint writes them: in events or as one body.

use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::response::Response;
use vlm_contract::continuation::{Identity, StreamState};
use vlm_contract::openai::usage::Usage;

use super::answer::{Answer, Piece};
use super::continuation::Relay;
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
    usage: Usage,
    identity: Identity,
    /// What was sent of each elsewhere, where that is continued.
    before: Option<Vec<(usize, Piece)>>,
    /// What continues the stream elsewhere is told.
    tells: bool,
}

/// An answer that is complete.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Its text, without calls.
    pub text: String,
    /// Its tokens, where asked for.
    pub tokens: Vec<SaidToken>,
    /// Its calls: function, arguments.
    pub calls: Vec<(String, String)>,
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
    /// Those to one prompt after another, `each` to a prompt, of the stream `identity`.
    pub fn new(mut answers: Vec<Answer>, each: usize, identity: Identity, relay: &Relay) -> Self {
        let pieces = |(index, answer): (usize, &mut Answer)| answer.take_before().into_iter().map(move |p| (index, p));
        let before = relay.continues().then(|| answers.iter_mut().enumerate().flat_map(pieces).collect::<Vec<_>>());
        let running = answers.into_iter().map(Some).collect();
        let (usage, tells) = (Usage::default(), relay.tells);
        let mut all = Self { running, turn: 0, each: each.max(1), usage, identity, before: None, tells };
        for (index, piece) in before.iter().flatten() {
            if let Piece::End { usage, .. } = piece {
                all.used(*index, usage);
            }
        }
        Self { before, ..all }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Which stream it is, where that is told.
    pub fn told(&self) -> Option<&Identity> {
        self.tells.then_some(&self.identity)
    }

    /// What was sent of each elsewhere; `None` for a stream that begins here.
    pub fn take_before(&mut self) -> Option<Vec<(usize, Piece)>> {
        self.before.take()
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
                    // Pieces of the same tokens stay together: what continues the stream is told with the last.
                    self.turn = if answer.has_more() { index } else { (index + 1) % count };
                    return Poll::Ready(Some(self.took(index, piece)));
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Keeps account of a piece.
    fn took(&mut self, index: usize, piece: Result<Piece, ApiError>) -> Result<(usize, Piece), ApiError> {
        match &piece {
            Ok(Piece::End { usage, .. }) => self.used(index, usage),
            Ok(_) => {}
            Err(_) => self.running.clear(),
        }
        piece.map(|piece| (index, piece))
    }

    /// What continues the answer at `index` elsewhere once all until now was sent, together with what this gave of it
    /// before; where it is told.
    pub fn state(&mut self, index: usize) -> Option<StreamState> {
        self.running.get_mut(index).filter(|_| self.tells)?.as_mut()?.state(index)
    }

    /// The same of a stream that is over.
    pub fn last_state(&self) -> Option<StreamState> {
        self.tells.then(|| StreamState { last: true, ..StreamState::default() })
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
                Piece::Call { name, arguments } => whole.calls.push((name, arguments)),
                Piece::End { reason, .. } => whole.reason = reason,
            }
        }
        Ok(voice.whole(wholes, self.usage))
    }
}

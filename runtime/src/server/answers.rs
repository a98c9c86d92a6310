//! All answers to one request, side by side, and how an endpoint writes them: in events or as one body.

use std::convert::Infallible;

use axum::response::Response;
use axum::response::sse;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use serde::Serialize;
use vlm_contract::continuation::{STATE_PREFIX, StreamState};
use vlm_contract::openai::usage::Usage;

use super::answer::{Answer, Piece};
use super::error::ApiError;
use super::said_tokens::SaidToken;

/// What comes next of one answer, which answer that is, and what continues it elsewhere.
type Numbered = (usize, Result<Piece, ApiError>, StreamState);

/// Answers in the making. Dropping them cancels all.
pub struct Answers {
    streams: SelectAll<BoxStream<'static, Numbered>>,
    count: usize,
    /// Answers to each prompt.
    each: usize,
    /// Calls of functions in each answer that were sent elsewhere.
    called: Vec<usize>,
    usage: Usage,
    /// What continues the one answer elsewhere, since it was last told.
    state: StreamState,
    with_state: bool,
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
pub trait Voice: Send + 'static {
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
        let count = answers.len();
        let seed = answers.first().map_or(0, Answer::seed);
        let called = answers.iter().map(Answer::called).collect();
        let pieces = |(index, answer)| {
            futures::stream::unfold(answer, move |mut answer: Answer| async move {
                let piece = answer.next().await?;
                let state = answer.take_state();
                Some(((index, piece, state), answer))
            })
            .boxed()
        };
        let streams = answers.into_iter().enumerate().map(pieces).collect();
        let state = StreamState { seed, ..StreamState::default() };
        Self { streams, count, each: each.max(1), called, usage: Usage::default(), state, with_state: false }
    }

    /// With each event, where there is one answer, goes what continues it elsewhere.
    #[must_use]
    pub fn with_state(mut self) -> Self {
        self.with_state = self.count == 1;
        self
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls of functions in each that were sent elsewhere.
    pub fn called(&self) -> &[usize] {
        &self.called
    }

    /// The next piece of any. An error is the last.
    pub async fn next(&mut self) -> Option<Result<(usize, Piece), ApiError>> {
        let (index, piece, state) = self.streams.next().await?;
        self.state.tokens.extend(state.tokens);
        self.state.ended = state.ended.or(self.state.ended);
        if let Ok(Piece::End { usage, .. }) = &piece {
            self.used(index, usage);
        }
        if piece.is_err() {
            self.streams.clear();
        }
        Some(piece.map(|piece| (index, piece)))
    }

    /// The events as they are sent. The last carries what continues the stream once it was sent.
    fn told(&mut self, events: Vec<Event>) -> Vec<sse::Event> {
        let last = events.len();
        (1..)
            .zip(events)
            .map(|(number, event)| {
                if !self.with_state || number < last {
                    return event.sse();
                }
                let state = serde_json::to_string(&self.state).unwrap_or_default();
                self.state.tokens.clear();
                sse::Event::default().comment(format!("{STATE_PREFIX}{state}")).data(event.data)
            })
            .collect()
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
        let mut wholes = vec![Whole::default(); self.count];
        while let Some(next) = self.next().await {
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

    /// All events that `voice` makes of them.
    pub fn events(self, voice: impl Voice) -> impl futures::Stream<Item = Result<sse::Event, Infallible>> {
        let begin = Events { answers: Some(self), voice, begun: false };
        futures::stream::unfold(begin, |mut events| async move {
            let some = events.some().await?;
            Some((futures::stream::iter(some.into_iter().map(Ok)), events))
        })
        .flatten()
    }
}

struct Events<V> {
    answers: Option<Answers>,
    voice: V,
    begun: bool,
}

impl<V: Voice> Events<V> {
    async fn some(&mut self) -> Option<Vec<sse::Event>> {
        let answers = self.answers.as_mut()?;
        if !self.begun {
            self.begun = true;
            let events = self.voice.begin();
            return Some(answers.told(events));
        }
        match answers.next().await {
            Some(Ok((index, piece))) => {
                let events = self.voice.piece(index, piece);
                Some(answers.told(events))
            }
            Some(Err(error)) => {
                self.answers = None;
                Some(self.voice.fail(&error).into_iter().map(Event::sse).collect())
            }
            None => {
                let usage = answers.usage();
                self.answers = None;
                Some(self.voice.end(usage).into_iter().map(Event::sse).collect())
            }
        }
    }
}

/// An event to be sent.
#[derive(Clone, Debug)]
pub struct Event {
    name: Option<&'static str>,
    data: String,
}

impl Event {
    /// Under a name.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    fn sse(self) -> sse::Event {
        let event = self.name.into_iter().fold(sse::Event::default(), sse::Event::event);
        event.data(self.data)
    }
}

/// Bytes that most events fit.
const EVENT_BYTES: usize = 512;

/// An event with a JSON body.
pub fn event(body: &impl Serialize) -> Event {
    let mut data = Vec::with_capacity(EVENT_BYTES);
    // These types always serialise; an empty object is what a client would see otherwise.
    let written = serde_json::to_writer(&mut data, body).ok().and_then(|()| String::from_utf8(data).ok());
    Event { name: None, data: written.unwrap_or_else(|| "{}".into()) }
}

/// The event that ends a stream.
pub fn done() -> Event {
    Event { name: None, data: "[DONE]".into() }
}

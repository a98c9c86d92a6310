//! An answer as server-sent events: a chunk with the role, chunks of text, a chunk with the finish
//! reason, the usage if asked for, `[DONE]`. A failure is an error event, and then the stream ends.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;
use vlm_contract::continuation::STATE_PREFIX;
use vlm_contract::openai::chat::{ChatChunk, ChunkChoice, Delta, Role};

use super::answer::{Answer, Piece};
use super::chat::Head;

/// What is sent next.
enum Next {
    Role,
    Text,
    Usage,
    Done,
    Nothing,
}

struct Events {
    answer: Answer,
    head: Head,
    form: Form,
    next: Next,
}

/// What a stream holds besides the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// The usage at the end.
    pub include_usage: bool,
    /// With each event what continues the stream elsewhere.
    pub with_state: bool,
    /// Another server has sent its beginning.
    pub begun: bool,
}

/// The response of a streamed answer.
pub fn respond(answer: Answer, head: Head, form: Form, keep_alive: Duration) -> Response {
    let sse = Sse::new(events(answer, head, form)).keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"));
    let mut response = sse.into_response();
    // Proxies that buffer would keep the first token from the reader.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn events(answer: Answer, head: Head, form: Form) -> impl Stream<Item = Result<Event, Infallible>> {
    let next = if form.begun { Next::Text } else { Next::Role };
    let begin = Events { answer, head, form, next };
    futures::stream::unfold(begin, |mut events| async move {
        let event = events.step().await?;
        Some((Ok(event), events))
    })
}

impl Events {
    async fn step(&mut self) -> Option<Event> {
        match self.next {
            Next::Role => {
                self.next = Next::Text;
                let delta = Delta { role: Some(Role::Assistant), content: Some(String::new()) };
                Some(self.chunk(delta, None))
            }
            Next::Text => match self.answer.next().await? {
                Ok(Piece::Text(text)) => Some(self.chunk(Delta { role: None, content: Some(text) }, None)),
                Ok(Piece::End(reason)) => {
                    self.next = if self.form.include_usage { Next::Usage } else { Next::Done };
                    Some(self.chunk(Delta::default(), Some(reason)))
                }
                Err(error) => {
                    self.next = Next::Nothing;
                    Some(event(&error.body()))
                }
            },
            Next::Usage => {
                self.next = Next::Done;
                let usage = Some(self.answer.usage());
                Some(event(&ChatChunk { usage, ..self.head.chunk(Vec::new()) }))
            }
            Next::Done => {
                self.next = Next::Nothing;
                Some(Event::default().data("[DONE]"))
            }
            Next::Nothing => None,
        }
    }

    fn chunk(&mut self, delta: Delta, reason: Option<&str>) -> Event {
        let choice = ChunkChoice { index: 0, delta, finish_reason: reason.map(Into::into) };
        let chunk = self.head.chunk(vec![choice]);
        if !self.form.with_state {
            return event(&chunk);
        }
        let state = serde_json::to_string(&self.answer.take_state()).unwrap_or_default();
        Event::default().comment(format!("{STATE_PREFIX}{state}")).data(json(&chunk))
    }
}

fn event(body: &impl Serialize) -> Event {
    Event::default().data(json(body))
}

fn json(body: &impl Serialize) -> String {
    // These types always serialise; an empty object is what a client would see otherwise.
    serde_json::to_string(body).unwrap_or_else(|_| "{}".into())
}

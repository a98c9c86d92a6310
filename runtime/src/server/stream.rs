//! An answer as server-sent events: a chunk with the role, chunks of text, a chunk with the finish
//! reason, the usage if asked for, `[DONE]`. A failure is an error event, and then the stream ends.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;
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
    include_usage: bool,
    next: Next,
}

/// The response of a streamed answer.
pub fn respond(answer: Answer, head: Head, include_usage: bool, keep_alive: Duration) -> Response {
    let sse = Sse::new(events(answer, head, include_usage))
        .keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"));
    let mut response = sse.into_response();
    // Proxies that buffer would keep the first token from the reader.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn events(answer: Answer, head: Head, include_usage: bool) -> impl Stream<Item = Result<Event, Infallible>> {
    let begin = Events { answer, head, include_usage, next: Next::Role };
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
                    self.next = if self.include_usage { Next::Usage } else { Next::Done };
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

    fn chunk(&self, delta: Delta, reason: Option<&str>) -> Event {
        let choice = ChunkChoice { index: 0, delta, finish_reason: reason.map(Into::into) };
        event(&self.head.chunk(vec![choice]))
    }
}

fn event(body: &impl Serialize) -> Event {
    // These types always serialise; an empty object is what a client would see otherwise.
    Event::default().data(serde_json::to_string(body).unwrap_or_else(|_| "{}".into()))
}

//! Answers as server-sent events, with comments where nothing else is sent for long.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::time::{Instant, Sleep, sleep};
use vlm_contract::continuation::STATE_PREFIX;

use super::answers::{Answers, Voice};
use super::events::{Event, KEEP_ALIVE};

/// Events that are ready at once go out together until they are so many bytes.
const TOGETHER_BYTES: usize = 16 * 1024;

/// The response of a streamed answer.
pub fn respond(answers: Answers, voice: impl Voice, keep_alive: Duration) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies that buffer would keep the first token from the reader.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(Spoken::new(answers, voice, keep_alive))).into_response()
}

/// The bytes of a stream. What is ready when it is asked is given as one block.
struct Spoken<V> {
    /// Until the last event.
    answers: Option<Answers>,
    voice: V,
    begun: bool,
    keep_alive: Duration,
    /// When something was last given. The alarm is not set anew with each token, but when it rings too early.
    given: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<V: Voice> Spoken<V> {
    fn new(answers: Answers, voice: V, keep_alive: Duration) -> Self {
        let (given, alarm) = (Instant::now(), Box::pin(sleep(keep_alive)));
        Self { answers: Some(answers), voice, begun: false, keep_alive, given, alarm }
    }

    /// Appends the events that are ready.
    fn collect(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) {
        while let Some(answers) = self.answers.as_mut().filter(|_| out.len() < TOGETHER_BYTES) {
            if !self.begun {
                self.begun = true;
                tell(answers, &self.voice.begin(), out);
                continue;
            }
            let last = match answers.poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok((index, piece)))) => {
                    tell(answers, &self.voice.piece(index, piece), out);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => self.voice.fail(&error),
                Poll::Ready(None) => self.voice.end(answers.usage()),
            };
            self.answers = None;
            write(&last, out);
        }
    }

    /// Ready when nothing was given for long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let due = self.given + self.keep_alive;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

/// Writes events. The last carries what continues the stream once it was sent.
fn tell(answers: &mut Answers, events: &[Event], out: &mut Vec<u8>) {
    let Some((last, others)) = events.split_last() else { return };
    write(others, out);
    let state = answers.take_state().map(|state| format!("{STATE_PREFIX}{state}"));
    last.write(state.as_deref(), out);
}

fn write(events: &[Event], out: &mut Vec<u8>) {
    for event in events {
        event.write(None, out);
    }
}

impl<V: Voice> Stream for Spoken<V> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut block = Vec::new();
        this.collect(context, &mut block);
        if block.is_empty() {
            if this.answers.is_none() {
                return Poll::Ready(None);
            }
            ready!(this.poll_silence(context));
            block = KEEP_ALIVE.to_vec();
            this.alarm.as_mut().reset(Instant::now() + this.keep_alive);
        }
        this.given = Instant::now();
        Poll::Ready(Some(Ok(block.into())))
    }
}

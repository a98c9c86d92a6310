//! The body of an answer on its way from a replica to the client. Whoever leaves first ends it for both.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{Job, attempt::Begun};
use crate::{
    desk::Lease,
    error::GatewayError,
    sse::{self, Splitter},
};

/// Whether an answer is a stream of events.
pub(crate) fn is_events(headers: &HeaderMap) -> bool {
    is_of(headers, "text/event-stream")
}

/// Whether an answer is one piece of JSON, as every answer of a model server is that is no stream.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    is_of(headers, "application/json")
}

fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).is_some_and(|value| value.trim().eq_ignore_ascii_case(kind))
}

/// Passes an answer on, and gives the replica back at its end. Where `events` break off or nothing comes for too long,
/// the last thing is an event that says so; any other answer ends without its end, so that nobody takes it for whole.
pub(super) fn follow(mut begun: Begun, lease: Lease, job: &Job, events: bool) -> Body {
    let metrics = job.app.metrics.clone();
    let silence = events.then_some(job.app.silence);
    Body::from_stream(async_stream::stream! {
        // Owned by the stream: the client that goes away drops it.
        let _lease = lease;
        let mut splitter = events.then(Splitter::default);
        while let Some(piece) = next(&mut begun, silence).await {
            match (piece, &mut splitter) {
                (Ok(bytes), None) => yield Ok(bytes),
                (Ok(bytes), Some(splitter)) => {
                    if let Some(whole) = splitter.push(bytes) {
                        yield Ok(whole);
                    }
                }
                (Err(error), None) => {
                    metrics.answer_broken();
                    yield Err(error);
                    return;
                }
                (Err(_), Some(_)) => {
                    metrics.answer_broken();
                    yield Ok(sse::event(&GatewayError::AnswerBroken.body()));
                    return;
                }
            }
        }
        if let Some(rest) = splitter.and_then(Splitter::rest) {
            yield Ok(rest);
        }
    })
}

/// The next piece; an error when none comes for `silence`.
async fn next(begun: &mut Begun, silence: Option<Duration>) -> Option<Result<Bytes, axum::Error>> {
    match silence {
        None => begun.next().await,
        Some(silence) => {
            let silent = |_| Some(Err(axum::Error::new(std::io::Error::other("the replica is silent"))));
            timeout(silence, begun.next()).await.unwrap_or_else(silent)
        }
    }
}

//! Answers as server-sent events, with comments where nothing else is sent for long.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};

use super::answers::{Answers, Voice};

/// The response of a streamed answer.
pub fn respond(answers: Answers, voice: impl Voice, keep_alive: Duration) -> Response {
    let sse = Sse::new(answers.events(voice)).keep_alive(KeepAlive::new().interval(keep_alive).text("keep-alive"));
    let mut response = sse.into_response();
    // Proxies that buffer would keep the first token from the reader.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

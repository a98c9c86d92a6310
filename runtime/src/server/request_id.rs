//! What surrounds every request: its id, a line in the log without any content, a 500 in place of
//! a panic, and, while draining, the hint to the client to connect anew.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use uuid::Uuid;

use super::app::App;
use super::error::{ApiError, excerpt};
use super::lifecycle::Phase;

/// The header, as clients and proxies send it and as it is given back.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over.
const LONGEST: usize = 128;

/// Id of a request: the client's if it is sound, else a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// From the request's headers. An id goes into logs, so only plain short ones are taken over.
    pub fn of(headers: &HeaderMap) -> Self {
        let sound = |id: &&str| {
            (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let sent = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(sound);
        Self(sent.map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The layer around all routes.
pub async fn surround(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = RequestId::of(request.headers());
    let (method, path) = (request.method().clone(), excerpt(request.uri().path()));
    let version = request.version();
    request.extensions_mut().insert(id.clone());
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = handled.unwrap_or_else(|_| {
        tracing::error!(request_id = %id, "a handler panicked");
        ApiError::Internal.into_response()
    });
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    // A kept connection would bring the next request here, past the routes that already changed.
    if app.lifecycle.phase() >= Phase::Draining && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, milliseconds) = (response.status().as_u16(), begun.elapsed().as_millis() as u64);
    if path.starts_with("/v1/") {
        tracing::info!(request_id = %id, %method, path, status, milliseconds, "request");
    } else {
        tracing::debug!(request_id = %id, %method, path, status, milliseconds, "request");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn sound_ids_are_taken_over_and_others_replaced() {
        assert_eq!(id("req_abc-1.2:3"), "req_abc-1.2:3");
        for silly in ["", "a b", "a\tb", "é", "{\"x\":1}", &"a".repeat(129)] {
            assert_ne!(id(silly), silly);
            assert!(Uuid::parse_str(&id(silly)).is_ok());
        }
        assert!(Uuid::parse_str(&RequestId::of(&HeaderMap::new()).to_string()).is_ok());
    }
}

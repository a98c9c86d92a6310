//! What surrounds every request: its id, a 500 in place of a panic, and, while draining, the hint to the client to
//! connect anew.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use uuid::Uuid;
use vlm_contract::headers::REQUEST_ID;

use crate::{app::App, error::GatewayError};

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
        let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sound);
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
    let id = RequestId::of(request.headers());
    let version = request.version();
    request.extensions_mut().insert(id.clone());
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = handled.unwrap_or_else(|_| {
        tracing::error!(request_id = %id, "a handler panicked");
        GatewayError::Internal.into_response()
    });
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    // A kept connection would bring the next request here, past the endpoints that already changed.
    if app.life.is_draining() && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_ids_are_taken_over_and_others_replaced() {
        let id = |sent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
            RequestId::of(&headers).to_string()
        };
        assert_eq!(id("req_abc-1.2:3"), "req_abc-1.2:3");
        for silly in ["", "a b", "é", "{\"x\":1}", &"a".repeat(129)] {
            assert!(Uuid::parse_str(&id(silly)).is_ok(), "{silly}");
        }
    }
}

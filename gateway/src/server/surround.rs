//! What surrounds every request: its id, a 500 in place of a panic, a 400 for a coding of its body that others may read
//! in another way, and, while draining, the hint to the client to connect anew.

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

/// Whether every reader finds the same end of the body: it is chunked, once, or of a length.
fn plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && codings.next().is_none()
}

/// The layer around all routes.
pub async fn surround(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let version = request.version();
    request.extensions_mut().insert(id.clone());
    let ambiguous = !plain(request.headers());
    let handled = async { if ambiguous { app.invalid(GatewayError::Coding) } else { next.run(request).await } };
    let handled = AssertUnwindSafe(handled).catch_unwind().await;
    let mut response = handled.unwrap_or_else(|_| {
        tracing::error!(request_id = %id, "a handler panicked");
        GatewayError::Internal.into_response()
    });
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    // A kept connection would bring the next request here, past the endpoints that already changed; and of one whose
    // bodies may be read in two ways, nobody knows where the next request begins.
    if (app.life.is_draining() || ambiguous) && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_body_that_is_chunked_once_or_of_a_length_is_plain() {
        let plain = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            super::plain(&headers)
        };
        assert!(plain(&[]) && plain(&["chunked"]) && plain(&["Chunked"]));
        for other in [&["chunked, chunked"][..], &["chunked", "chunked"], &["gzip, chunked"], &["identity"], &[""]] {
            assert!(!plain(other), "{other:?}");
        }
    }

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

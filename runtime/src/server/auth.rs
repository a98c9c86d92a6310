//! Who asks: by API key where keys are set, and else by what the gateway or the connection says. Without a key that
//! is set, only what probes and scrapes read can be had; the route of continuations has signatures of its own.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use vlm_contract::{continuation, headers};

use super::app::App;
use super::body;
use super::error::ApiError;
use crate::engine::fair::ClientId;

/// Routes without a key.
const OPEN: [&str; 5] = ["/health", "/ready", "/metrics", "/openapi.json", continuation::PATH];
/// Keys of a file; more are a mistake.
const MOST_KEYS: usize = 10_000;
/// Fewest and most bytes of a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

/// Address of the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Hashes of the keys that are accepted; the keys themselves are not kept.
#[derive(Debug, Default)]
pub struct Keys(Vec<blake3::Hash>);

/// Why keys cannot be used. It never holds a key.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the file of API keys, {path}, cannot be read: {reason}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A key is unusable.
    #[error("API key {number} is unusable; a key has 16 to 1024 printable ASCII characters and no blanks")]
    Key {
        /// Its place among the keys.
        number: usize,
    },
    /// There are none, or too many.
    #[error("{0} API keys are given; give 1 to {MOST_KEYS}, one a line")]
    Count(usize),
}

impl Keys {
    /// The keys of a file, one a line.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| KeysError::File { path: path.display().to_string(), reason: error.to_string() })?;
        Self::parse(&text)
    }

    /// Keys, one a line; empty lines are left out.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let keys: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if !(1..=MOST_KEYS).contains(&keys.len()) {
            return Err(KeysError::Count(keys.len()));
        }
        let sound = |key: &str| KEY_BYTES.contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if let Some(at) = keys.iter().position(|key| !sound(key)) {
            return Err(KeysError::Key { number: at + 1 });
        }
        Ok(Self(keys.into_iter().map(|key| blake3::hash(key.as_bytes())).collect()))
    }

    /// The client of a sent key, if it is one of these. Takes the same time whichever it is, and for any other key:
    /// hashes are compared in constant time, all of them.
    fn client(&self, sent: &[u8]) -> Option<ClientId> {
        let sent = blake3::hash(sent);
        let equal = self.0.iter().filter(|key| **key == sent).count();
        (equal > 0).then(|| ClientId::of("key", sent.as_bytes()))
    }
}

/// The layer that lets no one in without a key, and tells the handlers who asks.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let keyed = bearer(request.headers()).and_then(|key| app.keys.client(key));
    let needed = !app.keys.0.is_empty() && !OPEN.contains(&request.uri().path());
    if needed && keyed.is_none() {
        let sent = request.headers().contains_key(header::AUTHORIZATION);
        body::discard(request.into_body(), app.limits.body_bytes).await;
        return ApiError::Key { sent }.into_response();
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let client = keyed.unwrap_or_else(|| unkeyed(request.headers(), peer));
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The key of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

fn unkeyed(headers: &HeaderMap, peer: Option<IpAddr>) -> ClientId {
    match headers.get(headers::CLIENT) {
        Some(name) if name.len() <= headers::LONGEST_CLIENT => ClientId::of("header", name.as_bytes()),
        _ => ClientId::of("peer", peer.map(|peer| peer.to_string()).unwrap_or_default().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-0123456789abcdef";

    #[test]
    fn keys_are_told_apart_and_nothing_else_is_one() {
        let keys = Keys::parse(&format!("\n{KEY}\n  sk-another-key-of-ours \n")).unwrap();
        assert!(keys.client(KEY.as_bytes()).is_some());
        assert_ne!(keys.client(KEY.as_bytes()), keys.client(b"sk-another-key-of-ours"));
        for wrong in ["", "sk-0123456789abcde", "sk-0123456789abcdef ", "SK-0123456789ABCDEF"] {
            assert_eq!(keys.client(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(!format!("{keys:?}").contains(KEY));
    }

    #[test]
    fn unusable_keys_are_refused_and_not_repeated() {
        assert_eq!(Keys::parse("\n \n").unwrap_err(), KeysError::Count(0));
        for wrong in ["short", "sk-0123456789 abcdef", "sk-0123456789abcdé"] {
            let error = Keys::parse(&format!("{KEY}\n{wrong}")).unwrap_err();
            assert_eq!(error, KeysError::Key { number: 2 });
            assert!(!error.to_string().contains(wrong));
        }
        assert!(matches!(Keys::read(Path::new("/nonexistent")), Err(KeysError::File { .. })));
    }

    #[test]
    fn without_a_key_the_gateway_and_then_the_connection_tell_clients_apart() {
        let peers = ["10.0.0.1", "10.0.0.2"].map(|peer| Some(peer.parse().unwrap()));
        let mut headers = HeaderMap::new();
        assert_ne!(unkeyed(&headers, peers[0]), unkeyed(&headers, peers[1]));
        headers.insert(headers::CLIENT, "team-a".parse().unwrap());
        assert_eq!(unkeyed(&headers, peers[0]), unkeyed(&headers, peers[1]));
        headers.insert(headers::CLIENT, "x".repeat(257).parse().unwrap());
        assert_ne!(unkeyed(&headers, peers[0]), unkeyed(&headers, peers[1]));
    }

    #[test]
    fn the_key_is_a_bearer_token() {
        let sent = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|key| String::from_utf8_lossy(key).into_owned())
        };
        assert_eq!(sent("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(sent("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(sent("Basic abc"), None);
        assert_eq!(sent("Bear"), None);
    }
}

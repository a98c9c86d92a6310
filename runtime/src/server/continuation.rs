//! The route by which the gateway moves a stream here from a server that broke off: checks its signature, and hands
//! the client's request on as if it had come here, with what was generated of its answer already. The wire format is
//! the contract's.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use vlm_contract::continuation::{
    AnswerState, Head, LONGEST_AGE_SECONDS, LONGEST_HEAD, SIGNATURE, SIGNED_AT, signed_bytes,
};
use vlm_contract::headers::STREAM_STATE;

use super::admission::BodyRoom;
use super::app::{App, unix_seconds};
use super::body;
use super::error::{ApiError, excerpt};
use super::request_id::RequestId;
use super::{chat, completions, responses};

/// Bytes of an Ed25519 public key.
const KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// The key that the gateway's signatures are checked with.
#[derive(Clone, Debug)]
pub struct GatewayKey(UnparsedPublicKey<[u8; KEY_BYTES]>);

/// Reads the key of the command line: the 32 bytes of an Ed25519 public key in base64.
///
/// # Errors
/// What a key looks like.
pub fn gateway_key(text: &str) -> Result<GatewayKey, String> {
    let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
    let bytes = bytes.ok_or("the key is not the 32 bytes of an Ed25519 public key in base64")?;
    Ok(GatewayKey(UnparsedPublicKey::new(&ED25519, bytes)))
}

/// When and what the gateway signed.
struct Signed {
    at: String,
    signature: [u8; SIGNATURE_BYTES],
}

impl Signed {
    /// Of the headers, if the time is about `now`.
    fn read(headers: &HeaderMap, now: u64) -> Result<Self, ApiError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(at), Some(signature)) = (text(SIGNED_AT), text(SIGNATURE)) else {
            return Err(ApiError::Signature("the headers of a signature are missing"));
        };
        let time: u64 = at.parse().map_err(|_| ApiError::Signature("its time is no number of seconds"))?;
        if time.abs_diff(now) > LONGEST_AGE_SECONDS {
            return Err(ApiError::Signature("its time is not about now; check the clocks of both machines"));
        }
        let bytes = BASE64_STANDARD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = bytes.ok_or(ApiError::Signature("it is not 64 bytes in base64"))?;
        Ok(Self { at: at.to_owned(), signature })
    }

    fn check(&self, key: &GatewayKey, body: &[u8]) -> Result<(), ApiError> {
        let signed = signed_bytes(&self.at, digest(&SHA256, body).as_ref());
        let checked = key.0.verify(&signed, &self.signature);
        checked.map_err(|_| ApiError::Signature("it is not the gateway's signature of this body"))
    }
}

/// What a request of the gateway's continues.
#[derive(Clone, Debug)]
pub struct Continued {
    /// What the gateway says of the answer.
    pub head: Arc<Head>,
    room: Arc<Mutex<Option<BodyRoom>>>,
}

impl Continued {
    /// Takes the room that the body has already.
    pub fn take_room(&self) -> Option<BodyRoom> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How the stream of a request is handed from server to server.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// What it continues.
    pub from: Option<Continued>,
    /// With each event goes what continues it elsewhere.
    pub tells: bool,
}

impl Relay {
    /// That of a request, by its headers and the route that it came by.
    pub fn of(request: &Request) -> Self {
        let tells = request.headers().get(STREAM_STATE).is_some_and(|value| value == "true");
        Self { from: request.extensions().get::<Continued>().cloned(), tells }
    }

    /// Whether something of the stream was sent elsewhere.
    pub fn continues(&self) -> bool {
        self.from.as_ref().is_some_and(|from| !from.head.answers.is_empty())
    }

    /// Refuses to continue an answer that is no stream.
    ///
    /// # Errors
    /// What can be done instead.
    pub fn check(&self, stream: bool) -> Result<(), ApiError> {
        if self.from.is_none() || stream {
            return Ok(());
        }
        Err(ApiError::Malformed("only streams can be continued; ask again for the whole answer".into()))
    }

    /// How far each of `count` answers has come.
    ///
    /// # Errors
    /// The head tells of more.
    pub fn answers(&self, count: usize) -> Result<Vec<AnswerState>, ApiError> {
        let mut answers = self.from.as_ref().map(|from| from.head.answers.clone()).unwrap_or_default();
        if answers.len() > count {
            let message =
                format!("the continuation tells of {} answers, and the request asks for {count}", answers.len());
            return Err(ApiError::Malformed(message));
        }
        answers.resize_with(count, AnswerState::default);
        Ok(answers)
    }
}

/// The handler.
pub async fn resume(State(app): State<Arc<App>>, Extension(id): Extension<RequestId>, request: Request) -> Response {
    let (path, request) = match unwrap(&app, request).await {
        Ok(unwrapped) => unwrapped,
        Err(error) => return error.into_response(),
    };
    let (app, id) = (State(app), Extension(id));
    match path.as_str() {
        "/v1/chat/completions" => chat::completions(app, id, request).await,
        "/v1/completions" => completions::completions(app, id, request).await,
        "/v1/responses" => responses::responses(app, id, request).await,
        path => {
            let message = format!("an answer of {} cannot be continued", excerpt(path));
            ApiError::Malformed(message).into_response()
        }
    }
}

/// From a signed continuation to the client's request and its path.
async fn unwrap(app: &App, request: Request) -> Result<(String, Request), ApiError> {
    let (parts, body) = request.into_parts();
    let Some(key) = app.gateway_key.clone() else {
        body::discard(body, app.limits.body_bytes).await;
        return Err(ApiError::Route { path: excerpt(parts.uri.path()) });
    };
    let signed = match Signed::read(&parts.headers, unix_seconds()) {
        Ok(signed) => signed,
        Err(error) => {
            body::discard(body, app.limits.body_bytes).await;
            return Err(error);
        }
    };
    let length = body::announced(&parts.headers);
    let mut room = app.admission.body_room(length).await.ok_or(ApiError::Internal)?;
    let bytes = body::receive(body, length, &app.limits).await?;
    room.shrink(bytes.len());
    let checking = tokio::task::spawn_blocking(move || signed.check(&key, &bytes).map(|()| bytes)).await;
    let bytes = checking.map_err(|_| ApiError::Internal)??;
    let (head, body) = split(&bytes)?;
    Ok((head.path.clone(), inner(parts, head, body, room)?))
}

/// The head, and the client's body.
fn split(bytes: &Bytes) -> Result<(Head, Bytes), ApiError> {
    let wrong = |what: &str| ApiError::Malformed(format!("the continuation cannot be read: {what}"));
    let end = bytes.iter().take(LONGEST_HEAD).position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| wrong("its first line is no head"))?;
    let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|error| wrong(&excerpt(&error.to_string())))?;
    Ok((head, bytes.slice(end + 1..)))
}

fn inner(parts: Parts, head: Head, body: Bytes, room: BodyRoom) -> Result<Request, ApiError> {
    let kind = HeaderValue::from_str(&head.content_type)
        .map_err(|_| ApiError::Malformed("the content type of the continuation is no header".into()))?;
    let mut parts = parts;
    parts.headers.insert(header::CONTENT_TYPE, kind);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts.headers.remove(header::TRANSFER_ENCODING);
    let room = Arc::new(Mutex::new(Some(room)));
    parts.extensions.insert(Continued { head: Arc::new(head), room });
    Ok(Request::from_parts(parts, Body::from(body)))
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn pair(seed: u8) -> (Ed25519KeyPair, GatewayKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = gateway_key(&BASE64_STANDARD.encode(pair.public_key())).unwrap();
        (pair, key)
    }

    fn headers(pair: &Ed25519KeyPair, at: u64, body: &[u8]) -> HeaderMap {
        let at = at.to_string();
        let signature = pair.sign(&signed_bytes(&at, digest(&SHA256, body).as_ref()));
        let mut headers = HeaderMap::new();
        headers.insert(SIGNED_AT, at.parse().unwrap());
        headers.insert(SIGNATURE, BASE64_STANDARD.encode(signature).parse().unwrap());
        headers
    }

    #[test]
    fn only_the_gateways_signature_of_this_body_at_this_time_counts() {
        let ((gateway, key), (other, _)) = (pair(1), pair(2));
        let check = |headers: &HeaderMap, now, body: &[u8]| {
            Signed::read(headers, now).and_then(|signed| signed.check(&key, body)).is_ok()
        };
        let good = headers(&gateway, NOW, b"body");
        assert!(check(&good, NOW, b"body") && check(&good, NOW + 30, b"body") && check(&good, NOW - 30, b"body"));
        assert!(!check(&good, NOW + 31, b"body") && !check(&good, NOW - 31, b"body"));
        assert!(!check(&good, NOW, b"bodY"));
        assert!(!check(&headers(&other, NOW, b"body"), NOW, b"body"));
        let mut later = good.clone();
        later.insert(SIGNED_AT, (NOW + 1).to_string().parse().unwrap());
        assert!(!check(&later, NOW, b"body"));
        for (name, value) in [(SIGNED_AT, "soon"), (SIGNATURE, "AAAA"), (SIGNATURE, "*")] {
            let mut wrong = good.clone();
            wrong.insert(name, value.parse().unwrap());
            assert!(!check(&wrong, NOW, b"body"), "{name}: {value}");
        }
        assert!(!check(&HeaderMap::new(), NOW, b"body"));
    }

    #[test]
    fn a_key_is_thirty_two_bytes() {
        for wrong in ["", "x", "AAAA", &BASE64_STANDARD.encode([0; 33])] {
            assert!(gateway_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_head_is_the_first_line() {
        let head = r#"{"path": "/v1/x", "content_type": "a/b", "identity": {"id": "i", "created": 1, "seed": 2},
                       "answers": [{"tokens": [3]}]}"#;
        let head = head.replace('\n', " ");
        let (read, body) = split(&Bytes::from(format!("{head}\nbody\nof two lines"))).unwrap();
        let expected = (2, &[3][..], &b"body\nof two lines"[..]);
        assert_eq!((read.identity.seed, &read.answers[0].tokens[..], &body[..]), expected);
        for wrong in ["", "{}", "{}\n", "\n", "[1]\nx"] {
            assert!(split(&Bytes::from(wrong)).is_err(), "{wrong}");
        }
    }
}

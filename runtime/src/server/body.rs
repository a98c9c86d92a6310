//! Receiving a request's body: bounded in bytes and in time. A body of which nothing is needed is read all the same when
//! it may be, so that its connection serves the next request; one that is too large is answered at once, and the
//! connection sees to it that its client gets to read that (`listen::wire`).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::app::Limits;
use super::error::{ApiError, excerpt};

/// Silence after which a sender is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// A sender must not be slower than this, after [`GRACE`], so that slow ones do not take all the room for bodies.
const SLOWEST_BYTES_PER_SECOND: u64 = 8 * 1024;
/// Time that does not count.
const GRACE: Duration = Duration::from_secs(20);
/// Memory that is taken for a body before it comes.
const AHEAD: usize = 1 << 20;
/// Time spent on reading a body that nobody needs.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`
    Json,
    /// `multipart/form-data`
    Form,
}

impl Kind {
    /// As headers and messages spell it.
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "multipart/form-data",
        }
    }
}

/// What the headers say that the body is, which must be one of `kinds`.
pub fn kind(headers: &HeaderMap, kinds: &[Kind]) -> Result<Kind, ApiError> {
    let refuse = |got: String| {
        let served: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.media_type())).collect();
        ApiError::ContentType { got, served: served.join(" or ") }
    };
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(refuse("(none)".into()));
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let media = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let found = kinds.iter().copied().find(|kind| kind.media_type() == media);
    found.ok_or_else(|| refuse(format!("`{}`", excerpt(&media))))
}

/// The length that the headers announce.
pub fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a whole body within the limits.
pub async fn receive(body: Body, length: Option<usize>, limits: &Limits) -> Result<Bytes, ApiError> {
    let limit = limits.body_bytes;
    let too_large = ApiError::BodyTooLarge { limit };
    if length.is_some_and(|length| length > limit) {
        return Err(too_large);
    }
    let begun = Instant::now();
    let mut chunks = body.into_data_stream();
    // No more than is promised, and no more of a promise than a little.
    let mut received = BytesMut::with_capacity(length.unwrap_or(0).min(AHEAD));
    loop {
        let next = timeout(SILENCE.min(limits.body_time), chunks.next());
        let Ok(Ok(next)) = timeout_at(begun + patience(received.len()).min(limits.body_time), next).await else {
            return Err(ApiError::BodyTimeout { seconds: begun.elapsed().as_secs() });
        };
        match next {
            None => return Ok(received.freeze()),
            Some(Ok(chunk)) if received.len() + chunk.len() <= limit => {
                received.extend_from_slice(&chunk);
            }
            Some(Ok(_)) => return Err(too_large),
            Some(Err(error)) => {
                return Err(ApiError::Malformed(format!("the body broke off: {error}")));
            }
        }
    }
}

/// Time within which a body must have come further than `received` bytes.
fn patience(received: usize) -> Duration {
    GRACE + Duration::from_secs(received as u64 / SLOWEST_BYTES_PER_SECOND)
}

/// Reads and drops a body, up to about `most` bytes and for at most two seconds.
pub async fn discard(body: Body, most: usize) {
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            seen += chunk.len();
            if seen > most {
                break;
            }
        }
    };
    // Whether it ended or ran out of time makes no difference.
    let _ = timeout(DISCARD_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageLimits;

    fn limits() -> Limits {
        Limits {
            image: ImageLimits::default(),
            images: 1,
            body_bytes: 10,
            body_time: Duration::from_millis(50),
            keep_alive: Duration::from_secs(1),
        }
    }

    fn chunked(chunks: &'static [&'static str]) -> Body {
        Body::from_stream(futures::stream::iter(
            chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))),
        ))
    }

    #[tokio::test]
    async fn a_body_within_the_limit_arrives_whole() {
        let body = receive(chunked(&["hello", "world"]), None, &limits()).await.unwrap();
        assert_eq!(&body[..], b"helloworld");
    }

    #[tokio::test]
    async fn a_longer_body_is_refused_announced_or_not() {
        let late = receive(chunked(&["hello", "world", "!"]), None, &limits()).await;
        assert!(matches!(late, Err(ApiError::BodyTooLarge { limit: 10 })));
        let announced = receive(Body::empty(), Some(11), &limits()).await;
        assert!(matches!(announced, Err(ApiError::BodyTooLarge { limit: 10 })));
    }

    #[tokio::test]
    async fn a_sender_that_stalls_is_given_up() {
        let stalled = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = receive(stalled, None, &limits()).await.unwrap_err();
        assert!(matches!(error, ApiError::BodyTimeout { .. }));
    }

    #[test]
    fn patience_grows_with_what_has_come_and_not_with_time() {
        assert_eq!(patience(0), Duration::from_secs(20));
        assert_eq!(patience(1 << 20), Duration::from_secs(20 + 128));
    }

    #[test]
    fn the_content_type_decides() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            kind(&headers, &[Kind::Json, Kind::Form])
        };
        assert!(matches!(of("application/json"), Ok(Kind::Json)));
        assert!(matches!(of("Application/JSON; charset=utf-8"), Ok(Kind::Json)));
        assert!(matches!(of("multipart/form-data; boundary=x"), Ok(Kind::Form)));
        let error = of("text/plain").unwrap_err();
        assert_eq!(error.status().as_u16(), 415);
        assert!(error.to_string().contains("text/plain"));
        assert!(error.to_string().contains("`application/json` or `multipart/form-data`"));
        assert!(kind(&HeaderMap::new(), &[Kind::Json]).is_err());
    }
}

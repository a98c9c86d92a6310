//! What the head of a request may be: so many headers, of so many bytes, and a URL of so many.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body;
use super::error::ApiError;

/// Headers.
const MOST_HEADERS: usize = 100;
/// Bytes of all their names and values.
const MOST_BYTES: usize = 64 * 1024;
/// Bytes of path and query.
const LONGEST_URL: usize = 8 * 1024;
/// Bytes of a body that are read only to be dropped.
const DISCARD: usize = 1 << 20;

/// The layer that refuses what is beyond.
pub async fn limit(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            body::discard(request.into_body(), DISCARD).await;
            error.into_response()
        }
    }
}

fn check(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let url = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let beyond = [
        (headers.len(), MOST_HEADERS, "headers"),
        (bytes, MOST_BYTES, "bytes of headers"),
        (url, LONGEST_URL, "bytes of URL"),
    ];
    match beyond.into_iter().find(|(sent, most, _)| sent > most) {
        Some((sent, most, what)) => Err(ApiError::Head { sent, most, what }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn what_is_too_much_is_named() {
        let request = |headers: usize, bytes: usize, path: usize| {
            let mut request = Request::get(format!("/{}", "x".repeat(path)));
            for n in 0..headers {
                request = request.header(format!("h-{n:03}"), "v".repeat(bytes));
            }
            check(&request.body(Body::empty()).unwrap())
        };
        assert!(request(100, 10, 8000).is_ok());
        for (headers, bytes, path, what) in
            [(101, 1, 0, "headers"), (70, 1000, 0, "bytes of headers"), (1, 1, 9000, "bytes of URL")]
        {
            let error = request(headers, bytes, path).unwrap_err();
            assert!(matches!(error, ApiError::Head { what: said, .. } if said == what), "{error}");
            assert_eq!(error.status().as_u16(), 431);
        }
    }
}

//! What comes back from the hub: statuses into failures, bodies into bytes, never more of them than are wanted.

use std::{error::Error, ops::Range, time::Duration};

use reqwest::{Response, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::HubError;
use crate::error::printable;
use crate::patience::Failure;

/// What the hub writes beside an error's status.
const ERROR_MESSAGE: &str = "x-error-message";

/// A status that is no success.
pub(super) fn failure(what: &str, response: &Response, with_token: bool) -> Failure {
    let status = response.status();
    let what = what.to_owned();
    let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let said = text(ERROR_MESSAGE).map(printable).unwrap_or_default();
    let number = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            HubError::AccessDenied { what, status: number, said, with_token }.into()
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => HubError::NotFound { what, said }.into(),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::RANGE_NOT_SATISFIABLE => {
            Failure::Passing { reason: format!("HTTP {number}"), pause: pause(text("retry-after")) }
        }
        _ if status.is_server_error() => {
            Failure::Passing { reason: format!("HTTP {number}"), pause: pause(text("retry-after")) }
        }
        _ => HubError::Answer { what, reason: format!("HTTP {number}") }.into(),
    }
}

/// Seconds that the hub asks to wait; dates are not read.
fn pause(text: Option<&str>) -> Option<Duration> {
    text?.trim().parse().ok().map(Duration::from_secs)
}

/// A question without an answer, or an answer that broke off.
pub(crate) fn broken(what: &str, error: reqwest::Error) -> Failure {
    // Addresses of the hub's storage are signed: whoever reads one may download with it.
    let error = error.without_url();
    if error.is_redirect() || error.is_builder() {
        return HubError::Answer { what: what.to_owned(), reason: chain(&error) }.into();
    }
    Failure::passing(chain(&error))
}

/// An error and what it comes from, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    printable(&text)
}

pub(super) fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, HubError> {
    serde_json::from_slice(json)
        .map_err(|e| HubError::Answer { what: what.to_owned(), reason: printable(&format!("it does not parse: {e}")) })
}

/// The body, of at most `limit` bytes.
pub(super) async fn whole(what: &str, response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
    let too_large = || HubError::TooLarge { what: what.to_owned(), limit };
    let stated = response.content_length();
    if stated.is_some_and(|length| length > limit) {
        return Err(too_large().into());
    }
    let bytes = first(what, response, limit + 1).await?;
    if bytes.len() as u64 > limit {
        return Err(too_large().into());
    }
    Ok(bytes)
}

/// The bytes `range` of a file out of an answer that begins at its byte `begins`.
pub(super) async fn part(what: &str, response: Response, begins: u64, range: Range<u64>) -> Result<Vec<u8>, Failure> {
    let skip = range.start.checked_sub(begins).ok_or_else(|| HubError::Answer {
        what: what.to_owned(),
        reason: format!("it begins at byte {begins}, not {}", range.start),
    })?;
    let mut bytes = first(what, response, range.end.saturating_sub(begins)).await?;
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
    bytes.drain(..skip);
    Ok(bytes)
}

/// The first `most` bytes of a body; the rest is not read.
async fn first(what: &str, mut response: Response, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(what, e))? {
        let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(bytes.len());
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(bytes)
}

/// Which byte of the file the body begins with.
pub(super) fn begin(what: &str, response: &Response) -> Result<u64, HubError> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    range
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok())
        .ok_or_else(|| HubError::Answer { what: what.to_owned(), reason: "it does not say which bytes".to_owned() })
}

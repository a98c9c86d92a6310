//! What the gateway needs to know of a request's body: the model, whether the answer is streamed, and the affinity.
//! Everything else is the model server's business; the body goes on as it came.

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use crate::error::GatewayError;

pub mod affinity;
mod form;
mod json;

use affinity::Affinity;

/// What was read of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// The model's name; `None` when the body has none.
    pub model: Option<String>,
    /// The answer is to come as events.
    pub stream: bool,
    /// Which replica would answer best.
    pub affinity: Option<Affinity>,
}

/// Reads a body of JSON or of a form.
///
/// # Errors
/// [`GatewayError::Malformed`] for what is neither, [`GatewayError::ContentType`] for another kind of body.
pub async fn peek(headers: &HeaderMap, body: &Bytes) -> Result<Peek, GatewayError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => json::peek(body),
        Some("multipart/form-data") => form::peek(kind.unwrap_or_default(), body.clone()).await,
        other => Err(GatewayError::content_type(other)),
    }
}

//! The only map from what went wrong to HTTP status and `OpenAI` error body. A message says what happened and whether
//! to retry, and never repeats more than a few words of what the client sent.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use vlm_contract::{
    headers::REASON,
    openai::error::{ErrorBody, ErrorDetail},
};

use crate::{desk::Refusal, metrics::Refused};

#[cfg(test)]
mod tests;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The body is not what its content type says.
    #[error("{0}")]
    Malformed(String),
    /// The body names no model, and there is not exactly one.
    #[error("model: missing field; send the name of one of the models of /v1/models")]
    ModelMissing,
    /// No such model.
    #[error("the model `{asked}` does not exist; see /v1/models")]
    ModelNotFound {
        /// The name in the request.
        asked: String,
    },
    /// The body is too long.
    #[error("the body has more than {limit} bytes, the limit; send fewer or smaller images")]
    BodyTooLarge {
        /// Limit in bytes.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {seconds} s; send it faster or make it smaller")]
    BodyTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The body is coded in a way that is not read alike by all.
    #[error("the body's transfer coding is not read; send it chunked, once, or with its length")]
    Coding,
    /// The body broke off.
    #[error("the body broke off before its end; send it again")]
    BodyBroken,
    /// The bodies of other requests take all the room.
    #[error("the gateway holds as many bytes of requests as it may; retry in 1 s")]
    BodiesFull,
    /// Neither JSON nor a form.
    #[error("the content type {got} is not served; send `application/json` or `multipart/form-data`")]
    ContentType {
        /// What the request says, quoted, or that it says nothing.
        got: String,
    },
    /// No such route.
    #[error("{path} does not exist; see /v1/models and /v1/chat/completions")]
    Route {
        /// The path asked for.
        path: String,
    },
    /// The route has other methods.
    #[error("the method {method} is not allowed here; the header `allow` names those that are")]
    Method {
        /// The method asked for.
        method: String,
    },
    /// No replica takes it.
    #[error("{}", refusal(.0))]
    Refused(Refusal),
    /// Every attempt failed.
    #[error("{attempts} attempts at replicas of the model failed before an answer began: {}; retry", in_words(.last))]
    ReplicasFailed {
        /// How often it was tried.
        attempts: u32,
        /// What happened to the last: the word in the metric of failed attempts.
        last: &'static str,
    },
    /// The answer broke off after its first byte.
    #[error("the replica broke off before the answer was complete; retry")]
    AnswerBroken,
    /// The answer broke off after its first byte, and no other replica goes on with it: why, and whether to retry.
    #[error("the replica broke off before the answer was complete, and {0}")]
    NotContinued(&'static str),
    /// This gateway is shutting down.
    #[error("this gateway is shutting down; retry at once to reach another one")]
    Draining,
    /// A bug.
    #[error("internal error; retry once, and if it stays, the gateway's log says more under this request id")]
    Internal,
}

fn in_words(last: &str) -> &'static str {
    match last {
        "unreachable" => "the last one could not be reached",
        "broke_off" => "the last one broke off, as a process does that dies, or spoke no HTTP",
        "rubbish" => "the last one answered what no model server says",
        "full" => "the last one was full",
        "leaving" => "the last one was shutting down",
        _ => "the last one could not answer",
    }
}

fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::QueueFull { held, waking: true, retry_after_seconds } => {
            format!("the model is waking up, and {held} requests wait for it already; retry in {retry_after_seconds} s")
        }
        Refusal::QueueFull { held, waking: false, retry_after_seconds } => {
            format!("every replica is busy, and {held} requests wait already; retry in {retry_after_seconds} s")
        }
        Refusal::Waited { seconds, retry_after_seconds } => {
            format!("no replica was free within {seconds} s; retry in {retry_after_seconds} s")
        }
        Refusal::SwitchedOff => "the model is switched off: spec.replicas is 0; retrying does not help".to_owned(),
        Refusal::CannotStart { reason, message } => {
            format!("the model cannot start ({reason}): {message}; retrying does not help until that is mended")
        }
        Refusal::Gone => "the model was deleted; see /v1/models for those that there are".to_owned(),
    }
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl GatewayError {
    /// Another content type.
    pub fn content_type(got: Option<&str>) -> Self {
        Self::ContentType { got: got.map_or_else(|| "(none)".to_owned(), |got| format!("`{}`", excerpt(got))) }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::ModelMissing | Self::BodyBroken | Self::Coding => StatusCode::BAD_REQUEST,
            Self::ModelNotFound { .. } | Self::Route { .. } | Self::Refused(Refusal::Gone) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused(Refusal::QueueFull { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ReplicasFailed { .. } | Self::AnswerBroken | Self::NotContinued(_) => StatusCode::BAD_GATEWAY,
            Self::BodiesFull | Self::Draining | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Class of error, the body's `type`.
    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body's `code`, stable for programs; also the word in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_body",
            Self::ModelMissing => "model_missing",
            Self::ModelNotFound { .. } | Self::Refused(Refusal::Gone) => "model_not_found",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::Coding => "transfer_coding",
            Self::BodiesFull => "bodies_full",
            Self::ContentType { .. } => "unsupported_content_type",
            Self::Route { .. } => "unknown_url",
            Self::Method { .. } => "method_not_allowed",
            Self::Refused(refusal) => refused(refusal).map_or("model_not_found", Refused::name),
            Self::ReplicasFailed { .. } => Refused::Failed.name(),
            Self::AnswerBroken | Self::NotContinued(_) => "answer_broken",
            Self::Draining => "gateway_draining",
            Self::Internal => "internal_error",
        }
    }

    /// The word in the reason header: of a model that cannot start, why.
    fn reason(&self) -> &str {
        match self {
            Self::Refused(Refusal::CannotStart { reason, .. }) => reason,
            other => other.code(),
        }
    }

    /// What counts as a refused request of a model; `None` for what is the client's fault or the gateway's own.
    pub fn refused(&self) -> Option<Refused> {
        match self {
            Self::Refused(refusal) => refused(refusal),
            Self::ReplicasFailed { .. } => Some(Refused::Failed),
            _ => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Refused(
                Refusal::QueueFull { retry_after_seconds, .. } | Refusal::Waited { retry_after_seconds, .. },
            ) => Some(*retry_after_seconds),
            Self::BodiesFull | Self::ReplicasFailed { .. } => Some(1),
            // A model that was switched off or cannot start takes a person.
            Self::Refused(Refusal::SwitchedOff | Refusal::CannotStart { .. }) => Some(60),
            Self::Draining | Self::AnswerBroken => Some(0),
            _ => None,
        }
    }

    fn param(&self) -> Option<&'static str> {
        matches!(self, Self::ModelMissing | Self::ModelNotFound { .. } | Self::Refused(Refusal::Gone))
            .then_some("model")
    }

    /// The body, also sent as an event of a stream that has begun.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.to_string(),
                kind: self.kind().to_owned(),
                param: self.param().map(ToOwned::to_owned),
                code: Some(self.code().to_owned()),
            },
        }
    }
}

fn refused(refusal: &Refusal) -> Option<Refused> {
    match refusal {
        Refusal::QueueFull { .. } => Some(Refused::QueueFull),
        Refusal::Waited { .. } => Some(Refused::Waited),
        Refusal::SwitchedOff => Some(Refused::SwitchedOff),
        Refusal::CannotStart { .. } => Some(Refused::CannotStart),
        Refusal::Gone => None,
    }
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Ok(reason) = HeaderValue::from_str(self.reason()) {
            headers.insert(HeaderName::from_static(REASON), reason);
        }
        response
    }
}

/// The first few characters of what a client sent, for a message.
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

//! The only map from error to HTTP status and `OpenAI` error body. A message names the field, the
//! limit and the mend; it never repeats more than a few words of what the client sent.

mod unreadable;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use vlm_contract::openai::error::{ErrorBody, ErrorDetail};

use crate::engine::{Failure, SubmitError};
use crate::image::ImageError;
use crate::image::fetch::FetchError;
use crate::image::file::FileError;
use crate::prompt::PromptError;
pub use unreadable::Unreadable;

/// Seconds after which a client of a loading server may try again.
const LOADING_RETRY_SECONDS: u64 = 3;

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// The checkpoint is being opened.
    Opening,
    /// So many bytes of weights are read, of so many.
    Reading(u64, u64),
}

impl std::fmt::Display for LoadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opening => f.write_str("its files are being opened"),
            Self::Reading(read, total) => write!(f, "{read} of {total} bytes are read"),
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not what its content type says.
    #[error("{0}")]
    Malformed(String),
    /// A field is missing, of the wrong type, or out of its range.
    #[error("{message}")]
    Field {
        /// Which, as a path such as `messages[0].content`.
        param: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Prompt and answer do not fit the context.
    #[error("{message}")]
    ContextLength {
        /// The field to change.
        param: &'static str,
        /// Tokens and limit.
        message: String,
    },
    /// A picture cannot be used.
    #[error("{param}: {source}")]
    Image {
        /// The field that holds it.
        param: String,
        /// Why not.
        source: ImageError,
    },
    /// A picture cannot be fetched.
    #[error("{param}: {source}")]
    Fetch {
        /// The field that holds its URL.
        param: String,
        /// Why not.
        source: FetchError,
    },
    /// The file of a picture cannot be read.
    #[error("{param}: {source}")]
    ImageFile {
        /// The field that holds its URL.
        param: String,
        /// Why not.
        source: FileError,
    },
    /// The messages make no prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Another model was asked for.
    #[error("the model `{asked}` does not exist here; served: {served}")]
    ModelNotFound {
        /// The name in the request.
        asked: String,
        /// The names that would be right.
        served: String,
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
    /// Neither JSON nor a form.
    #[error("the content type {got} is not served; send {served}")]
    ContentType {
        /// What the request says, quoted, or that it says nothing.
        got: String,
        /// What would be right.
        served: String,
    },
    /// No API key, or a wrong one.
    #[error("{}; send the key as `Authorization: Bearer KEY`", if *sent { "the API key is not known here" } else { "the API key is missing" })]
    Key {
        /// Whether there was any.
        sent: bool,
    },
    /// The head of the request is too large.
    #[error("the request has {sent} {what}, and the limit is {most}; send fewer")]
    Head {
        /// How many there are.
        sent: usize,
        /// How many there may be.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// What came is no request.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A continuation is not signed by the gateway.
    #[error("the signature is refused: {0}")]
    Signature(&'static str),
    /// More connections than allowed.
    #[error("too many connections are open; retry soon, and use one connection for several requests")]
    Connections,
    /// No such route.
    #[error("{path} does not exist; see /openapi.json")]
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
    /// As many requests as allowed run and wait.
    #[error("the queue is full; retry in {retry_after_seconds} s")]
    QueueFull {
        /// Estimated from how fast requests complete.
        retry_after_seconds: u64,
    },
    /// The model is not loaded yet.
    #[error("the model is still loading ({0}); retry in {LOADING_RETRY_SECONDS} s")]
    Loading(LoadState),
    /// The server is shutting down.
    #[error("this server is shutting down; retry at once to reach another one")]
    Draining,
    /// The drain deadline passed before the answer was complete.
    #[error("the server shut down before the answer was complete; retry")]
    Aborted,
    /// The engine could not continue this answer.
    #[error("the engine could not continue: {0}")]
    Engine(Failure),
    /// A bug.
    #[error("internal error; the server's log says more under this request id")]
    Internal,
}

impl ApiError {
    /// A field that is missing, wrong or out of range.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { param: param.into(), message: message.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Image { source, .. } if is_size(source) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Fetch { source: FetchError::Image(source), .. } if is_size(source) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ImageFile { source: FileError::Image(source), .. } if is_size(source) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Malformed(_)
            | Self::Unreadable(Unreadable::Request)
            | Self::Field { .. }
            | Self::ContextLength { .. }
            | Self::Image { .. }
            | Self::Fetch { .. }
            | Self::ImageFile { .. }
            | Self::Prompt(_) => StatusCode::BAD_REQUEST,
            Self::Key { .. } | Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Head { .. } | Self::Unreadable(Unreadable::Head) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ModelNotFound { .. } | Self::Route { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Loading(_) | Self::Draining | Self::Aborted | Self::Connections => StatusCode::SERVICE_UNAVAILABLE,
            Self::Engine(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
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

    /// The body's `code`, stable for programs.
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) | Self::Field { .. } | Self::Prompt(_) => None,
            Self::ContextLength { .. } => Some("context_length_exceeded"),
            Self::Image { source, .. } if is_size(source) => Some("image_too_large"),
            Self::Image { .. } => Some("invalid_image"),
            Self::Fetch { source: FetchError::Image(source), .. }
            | Self::ImageFile { source: FileError::Image(source), .. } => {
                Some(if is_size(source) { "image_too_large" } else { "invalid_image" })
            }
            Self::Fetch { .. } | Self::ImageFile { .. } => Some("image_not_available"),
            Self::Key { .. } => Some("invalid_api_key"),
            Self::Signature(_) => Some("invalid_signature"),
            Self::Head { .. } | Self::Unreadable(Unreadable::Head) => Some("headers_too_large"),
            Self::Unreadable(Unreadable::Request) => Some("malformed_request"),
            Self::Connections => Some("too_many_connections"),
            Self::ModelNotFound { .. } => Some("model_not_found"),
            Self::BodyTooLarge { .. } => Some("body_too_large"),
            Self::BodyTimeout { .. } => Some("body_timeout"),
            Self::ContentType { .. } => Some("unsupported_content_type"),
            Self::Route { .. } => Some("unknown_url"),
            Self::Method { .. } => Some("method_not_allowed"),
            Self::QueueFull { .. } => Some("queue_full"),
            Self::Loading(_) => Some("model_loading"),
            Self::Draining | Self::Aborted => Some("server_draining"),
            Self::Engine(_) => Some("engine_error"),
            Self::Internal => Some("internal_error"),
        }
    }

    /// The field at fault.
    fn param(&self) -> Option<&str> {
        match self {
            Self::Field { param, .. }
            | Self::Image { param, .. }
            | Self::Fetch { param, .. }
            | Self::ImageFile { param, .. } => Some(param),
            Self::ContextLength { param, .. } => Some(param),
            Self::Prompt(_) => Some("messages"),
            Self::ModelNotFound { .. } => Some("model"),
            _ => None,
        }
    }

    /// Seconds after which to try again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after_seconds } => Some(*retry_after_seconds),
            Self::Loading(_) => Some(LOADING_RETRY_SECONDS),
            Self::Connections => Some(1),
            Self::Draining | Self::Aborted => Some(0),
            _ => None,
        }
    }

    /// The body, also sent as an event of a stream that has begun.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.to_string(),
                kind: self.kind().into(),
                param: self.param().map(Into::into),
                code: self.code().map(Into::into),
            },
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { retry_after_seconds } => Self::QueueFull { retry_after_seconds },
            SubmitError::TooLong { .. } => Self::ContextLength { param: "messages", message: error.to_string() },
            SubmitError::Empty => Self::field("messages", error.to_string()),
            SubmitError::Draining => Self::Draining,
            SubmitError::Stopped => Self::Engine(Failure::Stopped),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Key { .. }) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The picture is sound, only larger than allowed.
fn is_size(error: &ImageError) -> bool {
    matches!(error, ImageError::TooManyPixels { .. } | ImageError::TooManyBytes { .. })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: ApiError) -> u16 {
        error.into_response().status().as_u16()
    }

    #[test]
    fn each_error_has_its_status() {
        assert_eq!(status(ApiError::Malformed("x".into())), 400);
        assert_eq!(status(ApiError::field("n", "x")), 400);
        assert_eq!(status(SubmitError::TooLong { text: 4, images: 3, answer: 2, limit: 8 }.into()), 400);
        assert_eq!(status(ApiError::Key { sent: false }), 401);
        assert_eq!(status(ApiError::Signature("x")), 401);
        assert_eq!(status(ApiError::Connections), 503);
        assert_eq!(status(ApiError::Route { path: "/x".into() }), 404);
        assert_eq!(status(ApiError::Method { method: "PUT".into() }), 405);
        assert_eq!(status(ApiError::BodyTimeout { seconds: 1 }), 408);
        assert_eq!(status(ApiError::BodyTooLarge { limit: 1 }), 413);
        assert_eq!(status(ApiError::ContentType { got: "x".into(), served: "y".into() }), 415);
        assert_eq!(status(SubmitError::QueueFull { retry_after_seconds: 1 }.into()), 429);
        assert_eq!(status(ApiError::Internal), 500);
        assert_eq!(status(SubmitError::Stopped.into()), 500);
        assert_eq!(status(SubmitError::Draining.into()), 503);
        assert_eq!(status(ApiError::Loading(LoadState::Opening)), 503);
        let image = |source| status(ApiError::Image { param: "image".into(), source });
        assert_eq!(image(ImageError::Empty), 400);
        assert_eq!(image(ImageError::TooManyBytes { bytes: 2, limit: 1 }), 413);
        assert_eq!(image(ImageError::TooManyPixels { width: 2, height: 2, limit: 1 }), 413);
    }

    #[test]
    fn waiting_is_told_in_the_header() {
        let after = |error: ApiError| {
            error.into_response().headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(after(ApiError::QueueFull { retry_after_seconds: 7 }).as_deref(), Some("7"));
        assert_eq!(after(ApiError::Draining).as_deref(), Some("0"));
        assert!(after(ApiError::Loading(LoadState::Reading(1, 2))).is_some());
        assert_eq!(after(ApiError::Internal), None);
    }

    #[test]
    fn the_body_names_field_and_code() {
        let detail = ApiError::ModelNotFound { asked: "a".into(), served: "`b`".into() }.body().error;
        assert_eq!(detail.param.as_deref(), Some("model"));
        assert_eq!(detail.code.as_deref(), Some("model_not_found"));
        assert_eq!(detail.kind, "invalid_request_error");
        assert!(detail.message.contains("`a`") && detail.message.contains("`b`"));
        assert_eq!(ApiError::QueueFull { retry_after_seconds: 1 }.body().error.kind, "rate_limit_error");
    }

    #[test]
    fn an_excerpt_is_cut_at_a_character() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"é".repeat(500)).chars().count(), 101);
    }
}

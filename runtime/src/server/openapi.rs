//! `GET /openapi.json`: what the server takes and gives, from the types that it reads and writes.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::{OpenApi, ToSchema};
use vlm_contract::openai::chat::{ChatChunk, ChatRequest, ChatResponse};
use vlm_contract::openai::completions::{CompletionRequest, CompletionResponse};
use vlm_contract::openai::error::ErrorBody;
use vlm_contract::openai::models::{Model, ModelList};
use vlm_contract::openai::responses::{NumberedEvent, ResponseBody, ResponsesRequest};
use vlm_contract::openai::tokenize::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

/// The fields of a form on the chat path: files, and every other parameter of [`ChatRequest`] by its name.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and read field by field")]
struct ChatForm {
    /// The question; `messages` may stand in its place.
    prompt: String,
    /// Pictures: files, or `data:` URLs as text.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    image: Vec<String>,
    /// Longest answer in tokens.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
}

/// An event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and written by another type")]
struct SentEvent {
    /// What kind of event, on the responses path.
    event: Option<String>,
    /// JSON, or `[DONE]` at the end.
    data: String,
}

macro_rules! described {
    ($($function:ident: $(#[$path:meta])*;)*) => {
        $($(#[$path])* #[expect(dead_code, reason = "carries a description")] fn $function() {})*

        #[derive(OpenApi)]
        #[openapi(
            info(title = "vlm-runtime", description = "An OpenAI-compatible server of one vision-language model."),
            paths($($function),*),
            components(schemas(ChatChunk, NumberedEvent))
        )]
        struct Description;
    };
}

described! {
    chat_completions: #[utoipa::path(post, path = "/v1/chat/completions", description = "Answers to a conversation.",
        request_body(content((ChatRequest = "application/json"), (ChatForm = "multipart/form-data"))),
        responses((status = 200, description = "The answers; events of ChatChunk where streamed.",
                content((ChatResponse = "application/json"), (SentEvent = "text/event-stream"))),
            (status = "4XX", description = "The request is at fault.", body = ErrorBody),
            (status = "5XX", description = "The server is.", body = ErrorBody)))];
    completions: #[utoipa::path(post, path = "/v1/completions", description = "Texts continued.",
        request_body = CompletionRequest,
        responses((status = 200, description = "The answers; events of the same form where streamed.",
                content((CompletionResponse = "application/json"), (SentEvent = "text/event-stream"))),
            (status = "4XX", description = "The request is at fault.", body = ErrorBody),
            (status = "5XX", description = "The server is.", body = ErrorBody)))];
    responses: #[utoipa::path(post, path = "/v1/responses", description = "An answer to a conversation, without state.",
        request_body = ResponsesRequest,
        responses((status = 200, description = "The answer; events of NumberedEvent where streamed.",
                content((ResponseBody = "application/json"), (SentEvent = "text/event-stream"))),
            (status = "4XX", description = "The request is at fault.", body = ErrorBody),
            (status = "5XX", description = "The server is.", body = ErrorBody)))];
    tokenize: #[utoipa::path(post, path = "/tokenize", description = "Token ids of a text or a conversation.",
        request_body = TokenizeRequest,
        responses((status = 200, description = "The ids.", body = TokenizeResponse),
            (status = "4XX", description = "The request is at fault.", body = ErrorBody),
            (status = "5XX", description = "The server is.", body = ErrorBody)))];
    detokenize: #[utoipa::path(post, path = "/detokenize", description = "The text of token ids.",
        request_body = DetokenizeRequest,
        responses((status = 200, description = "The text.", body = DetokenizeResponse),
            (status = "4XX", description = "The request is at fault.", body = ErrorBody),
            (status = "5XX", description = "The server is.", body = ErrorBody)))];
    models: #[utoipa::path(get, path = "/v1/models", description = "Every name of the model.",
        responses((status = 200, description = "The names.", body = ModelList),
            (status = "5XX", description = "The server is at fault.", body = ErrorBody)))];
    model: #[utoipa::path(get, path = "/v1/models/{id}", description = "One name of the model.",
        params(("id" = String, Path, description = "The name.")),
        responses((status = 200, description = "The name.", body = Model),
            (status = "4XX", description = "There is no such name.", body = ErrorBody),
            (status = "5XX", description = "The server is at fault.", body = ErrorBody)))];
    health: #[utoipa::path(get, path = "/health", description = "Whether the process works.",
        responses((status = 200, description = "It does.", body = serde_json::Value),
            (status = "5XX", description = "It does not.", body = serde_json::Value)))];
    ready: #[utoipa::path(get, path = "/ready", description = "Whether requests are answered.",
        responses((status = 200, description = "They are.", body = serde_json::Value),
            (status = "5XX", description = "They are not, yet or any more.", body = serde_json::Value)))];
    metrics: #[utoipa::path(get, path = "/metrics", description = "Metrics in the text format of Prometheus.",
        responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")))];
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // It serialises always; a test reads it.
    Description::openapi().to_json().unwrap_or_else(|_| "{}".to_owned())
});

/// The description.
pub async fn document() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DOCUMENT.as_str()).into_response()
}

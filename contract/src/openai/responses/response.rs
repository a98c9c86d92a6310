//! The response: what the model said and which functions it asks for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{FlatTool, TextFormat};
use crate::openai::chat::TokenLogprob;
use crate::openai::error::ErrorDetail;

/// Response body; also within the first and the last event of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponseBody {
    /// Id of the response.
    pub id: String,
    /// Always `response`.
    pub object: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// How far it is.
    pub status: Status,
    /// Why there is none.
    pub error: Option<ErrorDetail>,
    /// Why it is not complete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As in the request.
    pub instructions: Option<String>,
    /// As in the request.
    pub max_output_tokens: Option<u32>,
    /// As in the request.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Map<String, Value>,
    /// Name of the model.
    pub model: String,
    /// What the model said and asks for.
    pub output: Vec<OutputItem>,
    /// Whether several functions may be called at once.
    pub parallel_tool_calls: bool,
    /// Always null.
    pub previous_response_id: Option<String>,
    /// Always false.
    pub store: bool,
    /// What was used.
    pub temperature: f32,
    /// What was used.
    pub top_p: f32,
    /// What was used.
    pub text: ResponseText,
    /// As in the request.
    pub tool_choice: Value,
    /// As in the request.
    pub tools: Vec<FlatTool>,
    /// Always `disabled`: what does not fit the context is refused.
    pub truncation: String,
    /// Tokens used; null while it is in progress.
    pub usage: Option<ResponseUsage>,
}

/// What form the answer has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponseText {
    /// The form.
    pub format: TextFormat,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Status {
    /// More comes.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut.
    Incomplete,
    /// It cannot be continued.
    Failed,
}

/// Why a response is not complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncompleteDetails {
    /// Always `max_output_tokens`.
    pub reason: String,
}

/// One item of a response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OutputItem {
    /// What the model said.
    Message(MessageItem),
    /// A function that it asks for.
    FunctionCall(FunctionCallItem),
}

/// What the model said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessageItem {
    /// Id of the item.
    pub id: String,
    /// How far it is.
    pub status: Status,
    /// Always `assistant`.
    pub role: String,
    /// Its text.
    pub content: Vec<OutputPart>,
}

/// A call of a function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FunctionCallItem {
    /// Id of the item.
    pub id: String,
    /// How far it is.
    pub status: Status,
    /// Names the call, for the item with its result.
    pub call_id: String,
    /// The function.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// A part of what the model said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OutputPart {
    /// Text.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
        annotations: Vec<Value>,
        /// Always empty.
        logprobs: Vec<TokenLogprob>,
    },
}

/// Tokens used by a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponseUsage {
    /// Tokens of the prompt, image tokens included.
    pub input_tokens: usize,
    /// More about them.
    pub input_tokens_details: InputTokensDetails,
    /// Generated tokens.
    pub output_tokens: usize,
    /// More about them.
    pub output_tokens_details: OutputTokensDetails,
    /// The sum.
    pub total_tokens: usize,
}

/// More about the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InputTokensDetails {
    /// Tokens that were cached from an earlier request and not computed again.
    pub cached_tokens: usize,
}

/// More about generated tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputTokensDetails {
    /// Always 0.
    pub reasoning_tokens: usize,
}

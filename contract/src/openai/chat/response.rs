//! The response, whole and in chunks.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::openai::tools::{ToolCall, ToolCallDelta};
use crate::openai::usage::Usage;

/// Response body of a request that is not streamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatResponse {
    /// Id of the request.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Tokens used.
    pub usage: Usage,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Choice {
    /// Which of the `n` answers.
    pub index: u32,
    /// The answer.
    pub message: AnswerMessage,
    /// Of its tokens, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: Option<String>,
}

/// What the model says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: Role,
    /// The text; null where there are only calls of tools.
    pub content: Option<String>,
    /// Calls of tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// Logarithms of probabilities of an answer's tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChoiceLogprobs {
    /// A token each.
    pub content: Vec<TokenLogprob>,
}

/// A token and how likely it was, with others in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenLogprob {
    /// Its text, with replacement characters where it is part of a character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its UTF-8 bytes; those of several tokens together give the text.
    pub bytes: Vec<u8>,
    /// The likeliest tokens in its place, the likeliest first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have been, and how likely it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopLogprob {
    /// Its text, with replacement characters where it is part of a character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its UTF-8 bytes.
    pub bytes: Vec<u8>,
}

/// One chunk of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChunk {
    /// Id of the request.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// Empty in the chunk that carries the usage.
    pub choices: Vec<ChunkChoice>,
    /// Tokens used; only in the last chunk, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a chunk adds to an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChunkChoice {
    /// Which of the `n` answers.
    pub index: u32,
    /// What is added.
    pub delta: Delta,
    /// Of the tokens that are added, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Set in the answer's last chunk.
    pub finish_reason: Option<String>,
}

/// What a chunk adds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delta {
    /// Only in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Calls of tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
}

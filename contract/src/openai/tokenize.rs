//! `POST /tokenize` and `POST /detokenize`.

use serde::{Deserialize, Serialize};

use super::chat::Message;
use super::tools::Tool;

/// Request body of `/tokenize`: a text, or a conversation.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenizeRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// A text; the model's special tokens in it are special tokens.
    #[serde(default)]
    pub prompt: Option<String>,
    /// A conversation, which takes as many tokens as in a request for an answer.
    #[serde(default)]
    pub messages: Option<Vec<Message>>,
    /// Functions that the model may call, which take tokens too.
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    /// Add the tokens that stand before every text; true unless said. Has no effect on a conversation.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// Give the tokens' strings as well.
    #[serde(default)]
    pub return_token_strs: Option<bool>,
}

/// Response body of `/tokenize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenizeResponse {
    /// Number of tokens.
    pub count: usize,
    /// Longest sequence in tokens, prompt and answer together.
    pub max_model_len: usize,
    /// Their ids; each row of a picture has the same one.
    pub tokens: Vec<u32>,
    /// Their strings as the vocabulary has them, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_strs: Option<Vec<String>>,
}

/// Request body of `/detokenize`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DetokenizeRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// Response body of `/detokenize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DetokenizeResponse {
    /// The text, without special tokens.
    pub prompt: String,
}

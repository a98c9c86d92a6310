//! Tokens that a request used, as the chat and completions endpoints count them.

use serde::{Deserialize, Serialize};

/// Tokens used by a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: usize,
    /// Generated tokens.
    pub completion_tokens: usize,
    /// The sum.
    pub total_tokens: usize,
    /// More about the prompt's tokens.
    #[serde(default)]
    pub prompt_tokens_details: PromptTokensDetails,
}

/// More about the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptTokensDetails {
    /// Tokens that were cached from an earlier request and not computed again.
    pub cached_tokens: usize,
}

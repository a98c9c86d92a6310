//! The request.

use std::collections::BTreeMap;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use super::Message;
use crate::openai::format::ResponseFormat;
use crate::openai::one_or_many::text_or_list;
use crate::openai::tools::{Tool, ToolChoice};

/// Request body.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// The conversation, oldest first.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub messages: Vec<Message>,
    /// Answer as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Longest answer in tokens (older name).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_tokens: Option<u32>,
    /// Longest answer in tokens.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_completion_tokens: Option<u32>,
    /// Shortest answer in tokens: what would end it has no effect before.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub min_tokens: Option<u32>,
    /// 0 takes the likeliest token; up to 2.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 2))]
    pub temperature: Option<f32>,
    /// Smallest set of tokens with this share of probability, in (0, 1].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub top_p: Option<f32>,
    /// So many of the likeliest tokens; 0 and -1 mean all.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = -1))]
    pub top_k: Option<i64>,
    /// Tokens with at least this share of the likeliest one's probability, in [0, 1].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub min_p: Option<f32>,
    /// Taken off the logit of each token that the answer has, in [-2, 2].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = -2, maximum = 2))]
    pub presence_penalty: Option<f32>,
    /// Taken off for each time that the answer has the token, in [-2, 2].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = -2, maximum = 2))]
    pub frequency_penalty: Option<f32>,
    /// Divides the logits of tokens of prompt and answer (Keskar et al. 2019), in (0, 10]; 1 has no effect.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 10))]
    pub repetition_penalty: Option<f32>,
    /// Added to logits, by token id, each in [-100, 100].
    #[serde(default)]
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Makes sampling repeatable.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Strings that end the answer and are not part of it.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Tokens that end the answer and are not part of it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 128))]
    pub stop_token_ids: Option<Vec<u32>>,
    /// How many answers.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 128))]
    pub n: Option<u32>,
    /// Generate past the end-of-text token (for measurements).
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// Tell the logarithm of each token's probability.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// And of so many of the likeliest tokens in its place; needs `logprobs`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 20))]
    pub top_logprobs: Option<u32>,
    /// What form the answer must have.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    /// Functions that the model may call.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 128))]
    pub tools: Option<Vec<Tool>>,
    /// Whether it may, must or must not; `auto` unless said.
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once; true unless said.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
}

/// One or several stop strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Stop {
    /// One string.
    One(String),
    /// Up to four strings.
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamOptions {
    /// Send a last chunk with the usage and no choices.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer, "a string or a list of strings", Self::One, Self::Many)
    }
}

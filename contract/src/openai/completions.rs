//! `POST /v1/completions`: a text that is a prompt already, continued.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::chat::{Stop, StreamOptions};
use super::format::ResponseFormat;
use super::usage::Usage;

/// Request body.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// What is continued: the model's special tokens in a text are special tokens.
    pub prompt: TextPrompt,
    /// Answer as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Longest answer in tokens; 16 unless said.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_tokens: Option<u32>,
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
    /// Divides the logits of tokens of prompt and answer, in (0, 10]; 1 has no effect.
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
    /// How many answers to each prompt.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 128))]
    pub n: Option<u32>,
    /// Generate past the end-of-text token (for measurements).
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// Tell the logarithm of each token's probability, and of so many of the likeliest in its place.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 20))]
    pub logprobs: Option<u32>,
    /// Give the prompt's text before each answer.
    #[serde(default)]
    pub echo: Option<bool>,
    /// What form the answer must have.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
}

/// One or several prompts, as texts or as token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TextPrompt {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids.
    Ids(Vec<u32>),
    /// Token ids of several prompts.
    ManyIds(Vec<Vec<u32>>),
}

/// An item of a list of prompts, or of one prompt's ids.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, a token id or a list of token ids")]
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for TextPrompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = TextPrompt;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string, a list of strings, token ids or a list of lists of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextPrompt, E> {
                Ok(TextPrompt::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<TextPrompt, E> {
                Ok(TextPrompt::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TextPrompt, A::Error> {
                let mut prompt = None;
                while let Some(item) = items.next_element::<Item>()? {
                    match (&mut prompt, item) {
                        (None, Item::Text(text)) => prompt = Some(TextPrompt::Texts(vec![text])),
                        (None, Item::Id(id)) => prompt = Some(TextPrompt::Ids(vec![id])),
                        (None, Item::Ids(ids)) => prompt = Some(TextPrompt::ManyIds(vec![ids])),
                        (Some(TextPrompt::Texts(all)), Item::Text(text)) => all.push(text),
                        (Some(TextPrompt::Ids(all)), Item::Id(id)) => all.push(id),
                        (Some(TextPrompt::ManyIds(all)), Item::Ids(ids)) => all.push(ids),
                        _ => return Err(A::Error::custom("texts and token ids are mixed; send one kind")),
                    }
                }
                Ok(prompt.unwrap_or(TextPrompt::Texts(Vec::new())))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Response body, and one chunk of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionResponse {
    /// Id of the request.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// The answers: those to the first prompt, those to the second, and so on.
    pub choices: Vec<TextChoice>,
    /// Tokens used; in a stream only in the last chunk, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One answer, or what a chunk adds to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextChoice {
    /// Which answer.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Of its tokens, where asked for.
    pub logprobs: Option<TextLogprobs>,
    /// `stop` or `length`; null before the end.
    pub finish_reason: Option<String>,
}

/// Logarithms of probabilities, an item a token in each list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextLogprobs {
    /// The tokens.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens in their places.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where their texts begin, in characters of the answer.
    pub text_offset: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_text_or_ids_or_lists_of_either() {
        let read = |prompt: &str| {
            let body = format!("{{\"prompt\": {prompt}}}");
            serde_json::from_str::<CompletionRequest>(&body).map(|request| request.prompt)
        };
        assert_eq!(read("\"a\"").unwrap(), TextPrompt::Text("a".into()));
        assert_eq!(read("[\"a\", \"b\"]").unwrap(), TextPrompt::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(read("[1, 2]").unwrap(), TextPrompt::Ids(vec![1, 2]));
        assert_eq!(read("[[1], [2, 3]]").unwrap(), TextPrompt::ManyIds(vec![vec![1], vec![2, 3]]));
        assert_eq!(read("[]").unwrap(), TextPrompt::Texts(Vec::new()));
        for wrong in ["1", "{}", "[1, \"a\"]", "[[1], 2]", "[-1]", "[[[1]]]", "null"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

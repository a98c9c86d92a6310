//! `POST /v1/chat/completions`: request, response and stream chunk.
//!
//! Requests are read by these types and refused by field name where a type is wrong; unknown
//! fields are ignored, as clients send many. Fields whose behaviour does not exist are absent.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Request body.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Answer as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Longest answer in tokens (older name).
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Longest answer in tokens.
    #[serde(default)]
    pub max_completion_tokens: Option<u32>,
    /// 0 takes the likeliest token; up to 2.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Smallest set of tokens with this share of probability, in (0, 1].
    #[serde(default)]
    pub top_p: Option<f32>,
    /// Makes sampling repeatable.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Strings that end the answer and are not part of it.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// How many answers; only 1 is served.
    #[serde(default)]
    pub n: Option<u32>,
    /// Generate past the end-of-text token (for measurements).
    #[serde(default)]
    pub ignore_eos: Option<bool>,
}

/// One or several stop strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// One string.
    One(String),
    /// Up to four strings.
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct StreamOptions {
    /// Send a last chunk with the usage and no choices.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// One message of the conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object with role and content")]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent or null means nothing.
    #[serde(default)]
    pub content: Option<Content>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The person asking.
    User,
    /// The model.
    Assistant,
}

/// Text alone, or parts.
#[derive(Clone, Debug)]
pub enum Content {
    /// Text.
    Text(String),
    /// Text and pictures in order.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "TypedPart")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
}

/// Where a picture is.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object with url")]
pub struct ImageUrl {
    /// A `data:` URL, or one of another kind where the server allows it.
    pub url: String,
    /// How closely to look at it.
    #[serde(default)]
    pub detail: Option<Detail>,
}

/// How closely to look at a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// As closely as the model does; the same as `high`.
    Auto,
    /// In one tile.
    Low,
    /// In as many tiles as the model cuts it into.
    High,
}

// Content, stop and part are read by hand: an untagged or internally tagged enum is buffered
// first, and then an error can no longer say which field it came from.

/// A part as it is written: its type and the field that belongs to it.
#[derive(Deserialize)]
#[serde(expecting = "an object with type")]
struct TypedPart {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

impl TryFrom<TypedPart> for Part {
    type Error = String;

    fn try_from(part: TypedPart) -> Result<Self, String> {
        match part.r#type.as_str() {
            "text" => part.text.map(|text| Self::Text { text }).ok_or("missing field `text`".into()),
            "image_url" => {
                part.image_url.map(|image_url| Self::ImageUrl { image_url }).ok_or("missing field `image_url`".into())
            }
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(format!("unknown part type `{shown}`, expected `text` or `image_url`"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Content;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Stop;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, texts: A) -> Result<Stop, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(texts)).map(Stop::Many)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Response body of a request that is not streamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
pub struct Choice {
    /// Which of the `n` answers.
    pub index: u32,
    /// The answer.
    pub message: AnswerMessage,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
}

/// The text of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// One chunk of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
pub struct ChunkChoice {
    /// Which of the `n` answers.
    pub index: u32,
    /// What is added.
    pub delta: Delta,
    /// Set in the answer's last chunk.
    pub finish_reason: Option<String>,
}

/// What a chunk adds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Only in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Tokens used by a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct PromptTokensDetails {
    /// Tokens that were cached from an earlier request and not computed again.
    pub cached_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<ChatRequest, serde_json::Error> {
        serde_json::from_str(body)
    }

    #[test]
    fn content_is_text_or_parts_and_may_be_absent() {
        let request = read(
            r#"{"messages": [{"role": "system", "content": "a"}, {"role": "assistant"},
                {"role": "user", "content": [{"type": "text", "text": "b"},
                 {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}]}],
                "stop": ["x", "y"], "unknown": {"ignored": true}}"#,
        )
        .unwrap();
        assert!(matches!(&request.messages[0].content, Some(Content::Text(text)) if text == "a"));
        assert!(request.messages[1].content.is_none());
        let Some(Content::Parts(parts)) = &request.messages[2].content else { panic!("parts") };
        assert!(matches!(&parts[1], Part::ImageUrl { image_url } if image_url.url == "data:,"));
        assert_eq!(request.stop, Some(Stop::Many(vec!["x".into(), "y".into()])));
        assert_eq!(request.model, None);
    }

    #[test]
    fn a_part_without_its_field_says_which() {
        let wrong = |part: &str| {
            let body = format!(r#"{{"messages": [{{"role": "user", "content": [{part}]}}]}}"#);
            read(&body).unwrap_err().to_string()
        };
        assert!(wrong(r#"{"type": "text"}"#).contains("missing field `text`"));
        assert!(wrong(r#"{"type": "image_url"}"#).contains("missing field `image_url`"));
        assert!(wrong(r#"{"type": "input_audio"}"#).contains("expected `text` or `image_url`"));
    }
}

//! Messages of a conversation and their parts.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::openai::one_or_many::text_or_list;
use crate::openai::tools::ToolCall;

/// One message of the conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object with role and content")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent or null means nothing.
    #[serde(default)]
    pub content: Option<Content>,
    /// Calls that the model has asked for; in messages of the assistant.
    #[serde(default)]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call whose result this is; in messages of a tool.
    #[serde(default)]
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The person asking.
    User,
    /// The model.
    Assistant,
    /// A function that the model had called.
    Tool,
}

/// Text alone, or parts.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Content {
    /// Text.
    Text(String),
    /// Text and pictures in order.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with url")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageUrl {
    /// A `data:` URL, or one of another kind where the server allows it.
    pub url: String,
    /// How closely to look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// How closely to look at a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Detail {
    /// As closely as the model does; the same as `high`.
    Auto,
    /// In one tile.
    Low,
    /// In as many tiles as the model cuts it into.
    High,
}

// Content and part are read by hand: an untagged or internally tagged enum is buffered first, and
// then an error can no longer say which field it came from.

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

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TypedPart::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer, "a string or a list of parts", Self::Text, Self::Parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatRequest, Stop};
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

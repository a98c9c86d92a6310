//! The request: instructions, and an input of messages, calls of functions and their results.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openai::chat::Detail;
use crate::openai::format::FormatType;
use crate::openai::one_or_many::text_or_list;
use crate::openai::tools::{ToolChoice, ToolType};

/// Request body.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponsesRequest {
    /// Name of the model; absent means the only one that the server has.
    #[serde(default)]
    pub model: Option<String>,
    /// The conversation, oldest first.
    pub input: Input,
    /// Instructions to the model, before the conversation.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Longest answer in tokens.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_output_tokens: Option<u32>,
    /// 0 takes the likeliest token; up to 2.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 2))]
    pub temperature: Option<f32>,
    /// Smallest set of tokens with this share of probability, in (0, 1].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub top_p: Option<f32>,
    /// Makes sampling repeatable.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Answer as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What form the answer must have.
    #[serde(default)]
    pub text: Option<TextOptions>,
    /// Functions that the model may call.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 128))]
    pub tools: Option<Vec<FlatTool>>,
    /// Whether it may, must or must not; `auto` unless said.
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once; true unless said.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    /// Must be absent: nothing is stored.
    #[serde(default)]
    pub previous_response_id: Option<String>,
    /// Must be absent or false: an answer comes with its request.
    #[serde(default)]
    pub background: Option<bool>,
    /// Given back as it is.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<serde_json::Map<String, Value>>,
}

/// One text of the person, or a conversation.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Input {
    /// A text of the person.
    Text(String),
    /// A conversation.
    Items(Vec<InputItem>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer, "a string or a list of items", Self::Text, Self::Items)
    }
}

/// One item of a conversation.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InputItem {
    /// What someone says.
    Message {
        /// Who.
        role: InputRole,
        /// What.
        content: InputContent,
    },
    /// A call that the model has asked for.
    FunctionCall {
        /// Names the call.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
    /// The result of a call.
    FunctionCallOutput {
        /// Names the call.
        call_id: String,
        /// The result.
        output: OutputValue,
    },
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InputRole {
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
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InputContent {
    /// Text.
    Text(String),
    /// Text and pictures in order.
    Parts(Vec<InputPart>),
}

impl<'de> Deserialize<'de> for InputContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer, "a string or a list of parts", Self::Text, Self::Parts)
    }
}

/// A part of a message.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InputPart {
    /// Text of a person.
    InputText {
        /// The text.
        text: String,
    },
    /// Text of the model.
    OutputText {
        /// The text.
        text: String,
    },
    /// A picture.
    InputImage {
        /// Its URL, as in the chat endpoint.
        image_url: String,
        /// How closely to look at it.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<Detail>,
    },
}

/// The result of a call: a text, or texts in parts.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OutputValue {
    /// A text.
    Text(String),
    /// Texts in order.
    Parts(Vec<InputPart>),
}

impl<'de> Deserialize<'de> for OutputValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer, "a string or a list of parts", Self::Text, Self::Parts)
    }
}

/// What form the answer must have.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextOptions {
    /// The form; `text` unless said.
    #[serde(default)]
    pub format: Option<TextFormat>,
}

/// A form of answer, its schema beside its type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextFormat {
    /// Which form.
    pub r#type: FormatType,
    /// Name of the schema; has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The schema (JSON Schema, draft 2020-12), where the type is `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub schema: Option<Value>,
    /// The answer always follows the schema, whatever this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// A function that the model may call, its fields beside its type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with type and name")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlatTool {
    /// Always `function`.
    pub r#type: ToolType,
    /// Its name: letters, digits, `_`, `-` and `.`, at most 64.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9_.-]+$"))]
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON schema of its arguments; absent means an empty object.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub parameters: Option<Value>,
    /// The arguments always follow the schema where a call is required.
    #[serde(default)]
    pub strict: Option<bool>,
}

// Items and parts are read by hand: an internally tagged enum is buffered first, and then an error
// can no longer say which field it came from.

/// An item as it is written: its type and the fields that belong to it.
#[derive(Deserialize)]
#[serde(expecting = "an object with role and content, or with type")]
struct TypedItem {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    role: Option<InputRole>,
    #[serde(default)]
    content: Option<InputContent>,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
    #[serde(default)]
    output: Option<OutputValue>,
}

impl<'de> Deserialize<'de> for InputItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn need<T, E: Error>(value: Option<T>, field: &'static str) -> Result<T, E> {
            value.ok_or_else(|| E::missing_field(field))
        }
        let item = TypedItem::deserialize(deserializer)?;
        match item.r#type.as_deref().unwrap_or("message") {
            "message" => Ok(Self::Message { role: need(item.role, "role")?, content: need(item.content, "content")? }),
            "function_call" => Ok(Self::FunctionCall {
                call_id: need(item.call_id, "call_id")?,
                name: need(item.name, "name")?,
                arguments: need(item.arguments, "arguments")?,
            }),
            "function_call_output" => Ok(Self::FunctionCallOutput {
                call_id: need(item.call_id, "call_id")?,
                output: need(item.output, "output")?,
            }),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(D::Error::custom(format!(
                    "unknown item type `{shown}`, expected `message`, `function_call` or `function_call_output`"
                )))
            }
        }
    }
}

/// A part as it is written.
#[derive(Deserialize)]
#[serde(expecting = "an object with type")]
struct TypedPart {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<String>,
    #[serde(default)]
    detail: Option<Detail>,
}

impl<'de> Deserialize<'de> for InputPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = TypedPart::deserialize(deserializer)?;
        let text = || part.text.clone().ok_or_else(|| D::Error::missing_field("text"));
        match part.r#type.as_str() {
            "input_text" => Ok(Self::InputText { text: text()? }),
            "output_text" => Ok(Self::OutputText { text: text()? }),
            "input_image" => {
                let image_url = part.image_url.clone().ok_or_else(|| D::Error::missing_field("image_url"))?;
                Ok(Self::InputImage { image_url, detail: part.detail })
            }
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(D::Error::custom(format!(
                    "unknown part type `{shown}`, expected `input_text`, `input_image` or `output_text`"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_messages_unless_they_say_otherwise() {
        let body = r#"{"input": [{"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "status": "completed"},
            {"type": "function_call_output", "call_id": "1", "output": "b"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]}]}"#;
        let request: ResponsesRequest = serde_json::from_str(body).unwrap();
        let Input::Items(items) = request.input else { panic!("items") };
        assert!(matches!(&items[0], InputItem::Message { role: InputRole::User, .. }));
        assert!(matches!(&items[1], InputItem::FunctionCall { name, .. } if name == "f"));
        assert!(matches!(&items[2], InputItem::FunctionCallOutput { call_id, .. } if call_id == "1"));
        assert!(
            matches!(&items[3], InputItem::Message { content: InputContent::Parts(parts), .. } if parts.len() == 1)
        );
    }

    #[test]
    fn what_an_item_lacks_is_named() {
        let wrong = |item: &str| {
            let body = format!("{{\"input\": [{item}]}}");
            serde_json::from_str::<ResponsesRequest>(&body).unwrap_err().to_string()
        };
        assert!(wrong(r#"{"content": "a"}"#).contains("missing field `role`"));
        assert!(wrong(r#"{"type": "function_call", "call_id": "1", "name": "f"}"#).contains("`arguments`"));
        assert!(wrong(r#"{"type": "reasoning"}"#).contains("unknown item type `reasoning`"));
        assert!(wrong(r#"{"role": "user", "content": [{"type": "input_image"}]}"#).contains("`image_url`"));
    }
}

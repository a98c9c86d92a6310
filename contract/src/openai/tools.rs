//! Functions that a model may ask its caller to call, and the calls.

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tool that the model may call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with type and function")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tool {
    /// Always `function`.
    pub r#type: ToolType,
    /// The function.
    pub function: Function,
}

/// A kind of tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ToolType {
    /// A function of the caller.
    Function,
}

/// A function of the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with name")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Function {
    /// Its name: letters, digits, `_`, `-` and `.`, at most 64.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9_.-]+$"))]
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments; absent means an empty object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub parameters: Option<Value>,
}

/// Whether the model may, must or must not call a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ToolChoice {
    /// In general.
    Mode(ToolMode),
    /// One function.
    Function(NamedTool),
}

/// Whether the model may, must or must not call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ToolMode {
    /// It must not.
    None,
    /// It may.
    Auto,
    /// It must.
    Required,
}

/// The function that must be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedTool {
    /// Always `function`.
    pub r#type: ToolType,
    /// Which.
    pub function: FunctionName,
}

/// A function by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with name")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FunctionName {
    /// Its name.
    pub name: String,
}

// Read by hand, so that an error can say which field it came from. The responses endpoint names the
// function beside the type instead of in an object of its own; either is read.
impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`none`, `auto`, `required`, or an object with type and function")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ToolChoice, E> {
                Ok(ToolChoice::Mode(match text {
                    "none" => ToolMode::None,
                    "auto" => ToolMode::Auto,
                    "required" => ToolMode::Required,
                    other => return Err(E::unknown_variant(other, &["none", "auto", "required"])),
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ToolChoice, A::Error> {
                let (mut kind, mut function) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => kind = Some(map.next_value::<ToolType>()?),
                        "function" => function = Some(map.next_value::<FunctionName>()?),
                        "name" => function = Some(FunctionName { name: map.next_value()? }),
                        _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                let r#type = kind.ok_or_else(|| A::Error::missing_field("type"))?;
                let function = function.ok_or_else(|| A::Error::missing_field("function"))?;
                Ok(ToolChoice::Function(NamedTool { r#type, function }))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A call of a tool, in an answer or in an earlier message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with id, type and function")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolCall {
    /// Names the call, for the message with its result.
    pub id: String,
    /// Always `function`.
    pub r#type: ToolType,
    /// What is called.
    pub function: FunctionCall,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with name and arguments")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// What a chunk adds to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolCallDelta {
    /// Which call of the answer.
    pub index: u32,
    /// Names the call; only in its first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`; only in its first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ToolType>,
    /// What is added.
    pub function: FunctionDelta,
}

/// What a chunk adds to a call of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FunctionDelta {
    /// Its name; only in the call's first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of its arguments.
    pub arguments: String,
}

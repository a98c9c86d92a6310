//! `response_format`: what form an answer must have.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What form an answer must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponseFormat {
    /// Which form.
    pub r#type: FormatType,
    /// The schema, where the type is `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchema>,
}

/// A form of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FormatType {
    /// Any text.
    Text,
    /// One JSON object.
    JsonObject,
    /// One JSON value that a schema describes.
    JsonSchema,
}

/// A named JSON schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object with name and schema")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JsonSchema {
    /// Its name; has no effect.
    #[serde(default)]
    pub name: Option<String>,
    /// What the answer is for; has no effect.
    #[serde(default)]
    pub description: Option<String>,
    /// The schema (JSON Schema, draft 2020-12); absent means any object.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub schema: Option<Value>,
    /// The answer always follows the schema, whatever this says.
    #[serde(default)]
    pub strict: Option<bool>,
}

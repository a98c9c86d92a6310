//! Functions that a request offers to the model, and the form that the answer must have.

use std::collections::HashSet;

use serde_json::{Value, json};
use vlm_contract::openai::format::{FormatType, ResponseFormat};
use vlm_contract::openai::tools::{Function, Tool, ToolChoice, ToolMode};

use super::super::error::{ApiError, excerpt};
use crate::guide::{CLOSE, Callable, OPEN};

/// Functions in one request, as many as `OpenAI` allows.
const MOST_TOOLS: usize = 128;
/// Characters of a function's name.
const LONGEST_NAME: usize = 64;

/// What the model may call.
#[derive(Clone, Debug)]
pub struct Offer {
    functions: Vec<Function>,
    choice: ToolChoice,
    several: bool,
}

impl Offer {
    /// Nothing.
    pub fn none() -> Self {
        Self { functions: Vec::new(), choice: ToolChoice::Mode(ToolMode::None), several: false }
    }

    /// What a request of the chat endpoint offers.
    pub fn of_chat(
        tools: Option<Vec<Tool>>,
        choice: Option<ToolChoice>,
        several: Option<bool>,
    ) -> Result<Self, ApiError> {
        let functions = tools.unwrap_or_default().into_iter().map(|tool| tool.function).collect();
        Self::new(functions, choice, several, |at| format!("tools[{at}].function"))
    }

    /// Checks names and choice. `param` says which field the function at an index is, for errors.
    pub fn new(
        functions: Vec<Function>,
        choice: Option<ToolChoice>,
        several: Option<bool>,
        param: impl Fn(usize) -> String,
    ) -> Result<Self, ApiError> {
        if functions.len() > MOST_TOOLS {
            let message = format!("tools: {} were sent; send at most {MOST_TOOLS}", functions.len());
            return Err(ApiError::field("tools", message));
        }
        let mut names = HashSet::new();
        for (at, function) in functions.iter().enumerate() {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let param = || format!("{}.name", param(at));
            if !(1..=LONGEST_NAME).contains(&function.name.len()) || !function.name.chars().all(letter) {
                let message = format!(
                    "{}: `{}` is no name of a function; use 1 to {LONGEST_NAME} letters, digits, `_`, `-` and `.`",
                    param(),
                    excerpt(&function.name)
                );
                return Err(ApiError::field(param(), message));
            }
            if !names.insert(function.name.as_str()) {
                return Err(ApiError::field(param(), format!("{}: two functions have this name", param())));
            }
        }
        let choice = choice.unwrap_or(ToolChoice::Mode(ToolMode::Auto));
        match &choice {
            ToolChoice::Function(chosen) if !names.contains(chosen.function.name.as_str()) => {
                let name = excerpt(&chosen.function.name);
                let message = format!("tool_choice: no function `{name}` is in `tools`");
                return Err(ApiError::field("tool_choice", message));
            }
            ToolChoice::Mode(ToolMode::Required) if functions.is_empty() => {
                return Err(ApiError::field("tool_choice", "tool_choice: `tools` is empty, so none can be required"));
            }
            _ => {}
        }
        Ok(Self { functions, choice, several: several.unwrap_or(true) })
    }

    /// Whether anything may be called.
    pub fn is_some(&self) -> bool {
        !self.functions.is_empty() && self.choice != ToolChoice::Mode(ToolMode::None)
    }

    /// What the model is told of it, in the words that the Hermes models and Qwen2.5 were trained on.
    pub fn text(&self) -> Option<String> {
        if !self.is_some() {
            return None;
        }
        let lines = self.functions.iter().map(|function| json!({"type": "function", "function": function}).to_string());
        let lines: Vec<String> = lines.collect();
        Some(format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
             function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\nFor each function call, \
             return a json object with function name and arguments within {OPEN}{CLOSE} XML tags:\n{OPEN}\n\
             {{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n{CLOSE}",
            lines.join("\n")
        ))
    }

    /// Whether the request leaves to the model which function it calls.
    fn choice_is_open(&self) -> bool {
        matches!(self.choice, ToolChoice::Mode(_))
    }

    /// The functions one of which must be called.
    fn required(&self) -> Option<Vec<Callable>> {
        let callable = |function: &Function| Callable {
            name: function.name.clone(),
            parameters: function.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}})),
        };
        match &self.choice {
            ToolChoice::Mode(ToolMode::Required) => Some(self.functions.iter().map(callable).collect()),
            ToolChoice::Function(named) => {
                let named = self.functions.iter().filter(|function| function.name == named.function.name);
                Some(named.map(callable).collect())
            }
            ToolChoice::Mode(_) => None,
        }
    }
}

/// What form an answer must have.
#[derive(Clone, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// A JSON object.
    Object,
    /// What a schema describes.
    Schema {
        /// The schema.
        schema: Value,
        /// Its field, for errors.
        param: &'static str,
    },
    /// Calls of functions.
    Calls {
        /// Which may be called.
        functions: Vec<Callable>,
        /// Whether several may be.
        several: bool,
    },
}

impl Form {
    /// The form for a request of the chat or completions endpoint. A required call goes before any other form.
    pub fn new(format: Option<ResponseFormat>, offer: &Offer) -> Result<Self, ApiError> {
        let Some(format) = format else { return Self::of(None, None, "", offer) };
        if format.r#type == FormatType::JsonSchema && format.json_schema.is_none() {
            let param = "response_format.json_schema";
            return Err(ApiError::field(param, format!("{param}: missing field `json_schema`; send name and schema")));
        }
        let schema = format.json_schema.and_then(|named| named.schema);
        Self::of(Some(format.r#type), schema, "response_format.json_schema.schema", offer)
    }

    /// The form of a type and a schema, which came in the field `param`.
    pub fn of(
        format: Option<FormatType>,
        schema: Option<Value>,
        param: &'static str,
        offer: &Offer,
    ) -> Result<Self, ApiError> {
        if let Some(functions) = offer.required() {
            return Ok(Self::Calls { functions, several: offer.several && offer.choice_is_open() });
        }
        Ok(match format {
            None | Some(FormatType::Text) => Self::Text,
            Some(FormatType::JsonObject) => Self::Object,
            Some(FormatType::JsonSchema) => match schema {
                None => Self::Object,
                Some(schema @ (Value::Object(_) | Value::Bool(_))) => Self::Schema { schema, param },
                Some(_) => return Err(ApiError::field(param, format!("{param}: expected an object"))),
            },
        })
    }
}

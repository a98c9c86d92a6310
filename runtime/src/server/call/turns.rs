//! The conversation of a request: who says what, with pictures where they stand. Calls of functions and their results
//! become text as the Hermes models write it.

use serde_json::{Value, json};
use vlm_contract::openai::chat::{Content, Detail, Message, Part, Role};
use vlm_contract::openai::tools::ToolCall;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::sources::Sources;
use super::{Offer, Upload};
use crate::guide::{CLOSE, OPEN};
use crate::image::TileBudget;
use crate::prompt::PromptRole;

/// One piece of a message.
#[derive(Clone, Debug)]
pub enum TurnPart {
    /// Text.
    Text(String),
    /// A picture.
    Image(Upload),
}

/// One message.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who speaks.
    pub role: PromptRole,
    /// What, in order.
    pub parts: Vec<TurnPart>,
}

/// Checks a conversation that came in `field`, each message with the name of its own field; `uploads` go before the
/// text of the last user message.
pub fn turns(
    field: &'static str,
    messages: Vec<(String, Message)>,
    uploads: Vec<Upload>,
    offer: &Offer,
    app: &App,
) -> Result<Vec<Turn>, ApiError> {
    let most_images = app.limits.images;
    if messages.is_empty() {
        return Err(ApiError::field(field, format!("{field}: empty; send at least one message")));
    }
    let many = |param: &str, count: usize| {
        let message = format!(
            "{param}: {count} images were sent; at most {most_images} are allowed in one request, \
             so send fewer"
        );
        ApiError::field(param, message)
    };
    if uploads.len() > most_images {
        return Err(many("image", uploads.len()));
    }
    let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for (param, message) in messages {
        let result = message.role == Role::Tool;
        let turn = turn(&param, message, &app.sources)?;
        match turns.last_mut() {
            // The results of several calls are one message.
            Some(last) if result && after_result => {
                append(&mut last.parts, "\n");
                turn.parts.into_iter().for_each(|part| match part {
                    TurnPart::Text(text) => append(&mut last.parts, &text),
                    image @ TurnPart::Image(_) => last.parts.push(image),
                });
            }
            _ => turns.push(turn),
        }
        after_result = result;
    }
    let images = turns.iter().flat_map(|turn| &turn.parts).filter(|part| matches!(part, TurnPart::Image(_))).count();
    if images + uploads.len() > most_images {
        return Err(many(field, images + uploads.len()));
    }
    if !uploads.is_empty() {
        let Some(last) = turns.iter_mut().rfind(|turn| turn.role == PromptRole::User) else {
            let message = format!("{field}: there is no user message to which the images could belong; send one");
            return Err(ApiError::field(field, message));
        };
        last.parts.splice(0..0, uploads.into_iter().map(TurnPart::Image));
    }
    if let Some(text) = offer.text() {
        tell(&mut turns, text);
    }
    Ok(turns)
}

/// Puts `text` into the instructions, at their end.
fn tell(turns: &mut Vec<Turn>, text: String) {
    match turns.first_mut() {
        Some(first) if first.role == PromptRole::System => {
            append(&mut first.parts, &format!("\n\n{text}"));
        }
        _ => turns.insert(0, Turn { role: PromptRole::System, parts: vec![TurnPart::Text(text)] }),
    }
}

fn turn(param: &str, message: Message, sources: &Sources) -> Result<Turn, ApiError> {
    let role = match message.role {
        Role::System | Role::Developer => PromptRole::System,
        Role::User | Role::Tool => PromptRole::User,
        Role::Assistant => PromptRole::Assistant,
    };
    let mut parts = match message.content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![TurnPart::Text(text)],
        Some(Content::Parts(parts)) => (0..)
            .zip(parts)
            .map(|(at, part)| turn_part(&format!("{param}.content[{at}]"), part, sources))
            .collect::<Result<_, _>>()?,
    };
    if message.role == Role::Tool {
        prepend(&mut parts, "<tool_response>\n");
        append(&mut parts, "\n</tool_response>");
    }
    if message.role == Role::Assistant {
        let calls: Vec<String> = message.tool_calls.unwrap_or_default().iter().map(written).collect();
        let before = if parts.is_empty() { "" } else { "\n" };
        if !calls.is_empty() {
            append(&mut parts, &(before.to_owned() + &calls.join("\n")));
        }
    }
    Ok(Turn { role, parts })
}

fn turn_part(param: &str, part: Part, sources: &Sources) -> Result<TurnPart, ApiError> {
    match part {
        Part::Text { text } => Ok(TurnPart::Text(text)),
        Part::ImageUrl { image_url } => {
            let param = format!("{param}.image_url");
            let detail = TileBudget(matches!(image_url.detail, Some(Detail::Low)).then_some(1));
            let picture = sources.picture(image_url.url, &param)?;
            Ok(TurnPart::Image(Upload { param, picture, detail }))
        }
    }
}

/// A call as the model would have written it.
fn written(call: &ToolCall) -> String {
    let arguments = serde_json::from_str(&call.function.arguments);
    let arguments: Value = arguments.unwrap_or_else(|_| Value::from(call.function.arguments.as_str()));
    format!("{OPEN}\n{}\n{CLOSE}", json!({"name": call.function.name, "arguments": arguments}))
}

/// Puts `text` behind what is said: a template would put a part of its own on a line of its own.
fn append(parts: &mut Vec<TurnPart>, text: &str) {
    match parts.last_mut() {
        Some(TurnPart::Text(last)) => last.push_str(text),
        _ => parts.push(TurnPart::Text(text.to_owned())),
    }
}

/// Puts `text` before what is said.
fn prepend(parts: &mut Vec<TurnPart>, text: &str) {
    match parts.first_mut() {
        Some(TurnPart::Text(first)) => first.insert_str(0, text),
        _ => parts.insert(0, TurnPart::Text(text.to_owned())),
    }
}

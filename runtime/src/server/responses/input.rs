//! The input of a request as the messages of a conversation.

use vlm_contract::openai::chat::{Content, ImageUrl, Message, Part, Role};
use vlm_contract::openai::responses::{
    Input, InputContent, InputItem, InputPart, InputRole, OutputValue, ResponsesRequest,
};
use vlm_contract::openai::tools::{FunctionCall, ToolCall, ToolType};

/// Takes instructions and input out of `asked`; each message comes with the name of its field. Calls in a row are one
/// message, with what the model said before them.
pub fn messages(asked: &mut ResponsesRequest) -> Vec<(String, Message)> {
    let instructions = asked.instructions.iter().map(|text| {
        let content = Some(Content::Text(text.clone()));
        ("instructions".to_owned(), message(Role::System, content))
    });
    let mut messages: Vec<(String, Message)> = instructions.collect();
    let items = match std::mem::replace(&mut asked.input, Input::Items(Vec::new())) {
        Input::Text(text) => {
            messages.push(("input".to_owned(), message(Role::User, Some(Content::Text(text)))));
            return messages;
        }
        Input::Items(items) => items,
    };
    for (at, item) in items.into_iter().enumerate() {
        let param = format!("input[{at}]");
        match item {
            InputItem::Message { role, content } => {
                messages.push((param, message(role_of(role), Some(content_of(content)))));
            }
            InputItem::FunctionCall { call_id, name, arguments } => {
                let function = FunctionCall { name, arguments };
                let call = ToolCall { id: call_id, r#type: ToolType::Function, function };
                match messages.last_mut() {
                    Some((_, last)) if last.role == Role::Assistant => {
                        last.tool_calls.get_or_insert_default().push(call);
                    }
                    _ => {
                        let tool_calls = Some(vec![call]);
                        messages.push((param, Message { tool_calls, ..message(Role::Assistant, None) }));
                    }
                }
            }
            InputItem::FunctionCallOutput { call_id, output } => {
                let content = match output {
                    OutputValue::Text(text) => Content::Text(text),
                    OutputValue::Parts(parts) => Content::Parts(parts.into_iter().map(part).collect()),
                };
                let tool_call_id = Some(call_id);
                messages.push((param, Message { tool_call_id, ..message(Role::Tool, Some(content)) }));
            }
        }
    }
    messages
}

fn message(role: Role, content: Option<Content>) -> Message {
    Message { role, content, tool_calls: None, tool_call_id: None }
}

fn role_of(role: InputRole) -> Role {
    match role {
        InputRole::System => Role::System,
        InputRole::Developer => Role::Developer,
        InputRole::User => Role::User,
        InputRole::Assistant => Role::Assistant,
    }
}

fn content_of(content: InputContent) -> Content {
    match content {
        InputContent::Text(text) => Content::Text(text),
        InputContent::Parts(parts) => Content::Parts(parts.into_iter().map(part).collect()),
    }
}

fn part(part: InputPart) -> Part {
    match part {
        InputPart::InputText { text } | InputPart::OutputText { text } => Part::Text { text },
        InputPart::InputImage { image_url, detail } => {
            Part::ImageUrl { image_url: ImageUrl { url: image_url, detail } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_come_first_and_calls_in_a_row_are_one_message() {
        let body = r#"{"instructions": "Be brief.", "input": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "c"}]}]}"#;
        let messages = messages(&mut serde_json::from_str(body).unwrap());
        let seen: Vec<(&str, Role)> = messages.iter().map(|(param, message)| (param.as_str(), message.role)).collect();
        let expected = [
            ("instructions", Role::System),
            ("input[0]", Role::User),
            ("input[1]", Role::Assistant),
            ("input[4]", Role::Tool),
        ];
        assert_eq!(seen, expected);
        assert_eq!(messages[2].1.tool_calls.as_ref().map(Vec::len), Some(2));
        let text = super::messages(&mut serde_json::from_str(r#"{"input": "a"}"#).unwrap());
        assert!(matches!(&text[..], [(param, Message { role: Role::User, .. })] if param == "input"));
    }
}

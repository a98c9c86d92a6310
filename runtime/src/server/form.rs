//! `multipart/form-data` on the chat path, so that `curl -F prompt='…' -F image=@x.png` works:
//! files in `image` (repeatable), the question in `prompt` or a conversation in `messages` (JSON),
//! every other parameter as a field of its JSON name. Pictures come before the text of the last
//! user message.

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use vlm_contract::openai::chat::ChatRequest;

use super::call::{Picture, Upload};
use super::error::{ApiError, excerpt};
use super::parse;
use crate::image::TileBudget;

/// More fields than any request has.
const MOST_FIELDS: usize = 256;
/// Longest text that could be a file name given in place of the file.
const LONGEST_PATH: usize = 4096;

/// Fields that are a number, true or false.
const PLAIN: [&str; 17] = [
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "n",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
];

/// Reads a form into the request that the same fields would make as JSON, and its files.
pub async fn read(parts: Parts, body: Bytes) -> Result<(ChatRequest, Vec<Upload>), ApiError> {
    let request = Request::from_parts(parts, Body::from(body));
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| ApiError::Malformed(format!("the form cannot be read: {error}")))?;
    let mut fields = Map::new();
    let mut files = Vec::new();
    let mut count = 0;
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
        count += 1;
        if count > MOST_FIELDS {
            return Err(ApiError::Malformed(format!("the form has over {MOST_FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "image" | "image[]" => files.push(picture(field, files.len()).await?),
            _ if field.file_name().is_some() && name != "prompt" && name != "messages" => {
                let message = format!("`{}` is no file field; send pictures as `image`", excerpt(&name));
                return Err(ApiError::field(excerpt(&name), message));
            }
            _ => add(&mut fields, &name, &text(field, &name).await?)?,
        }
    }
    conversation(&mut fields)?;
    Ok((parse::fields(Value::Object(fields))?, files))
}

/// Turns `prompt` into a conversation of one message.
fn conversation(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    match (fields.remove("prompt"), fields.contains_key("messages")) {
        (Some(prompt), false) => {
            fields.insert("messages".into(), json!([{"role": "user", "content": prompt}]));
            Ok(())
        }
        (None, true) => Ok(()),
        (Some(_), true) => Err(ApiError::field("prompt", "prompt: send either `prompt` or `messages`, not both")),
        (None, false) => Err(ApiError::field(
            "prompt",
            "prompt: missing field; send the question as `prompt`, or a conversation as `messages`",
        )),
    }
}

async fn picture(field: Field<'_>, index: usize) -> Result<Upload, ApiError> {
    let param = format!("image[{index}]");
    let is_file = field.file_name().is_some();
    let bytes = field.bytes().await.map_err(|error| broken(&error))?;
    if is_file {
        return Ok(upload(param, Picture::File(bytes)));
    }
    match std::str::from_utf8(&bytes) {
        Ok(url) if url.starts_with("data:") => Ok(upload(param, Picture::DataUrl(url.to_owned()))),
        Ok(path) if path.len() <= LONGEST_PATH && !path.is_empty() => {
            let shown = excerpt(path);
            let message = format!(
                "{param}: `{shown}` is text, not a picture; to send a file with curl, write \
                 `-F image=@{shown}`"
            );
            Err(ApiError::field(param, message))
        }
        _ => Ok(upload(param, Picture::File(bytes))),
    }
}

fn upload(param: String, picture: Picture) -> Upload {
    Upload { param, picture, detail: TileBudget::default() }
}

async fn text(field: Field<'_>, name: &str) -> Result<String, ApiError> {
    let bytes = field.bytes().await.map_err(|error| broken(&error))?;
    String::from_utf8(bytes.into()).map_err(|_| {
        let name = excerpt(name);
        ApiError::field(name.clone(), format!("{name}: the text is not UTF-8"))
    })
}

/// Gives a field the type that its text has in JSON.
fn add(fields: &mut Map<String, Value>, name: &str, text: &str) -> Result<(), ApiError> {
    let value = match name {
        "prompt" | "model" => Value::from(text),
        "messages" | "stream_options" | "stop_token_ids" | "logit_bias" | "response_format" | "tools" => {
            serde_json::from_str(text).map_err(|error| {
                ApiError::field(name, format!("{name}: not valid JSON: {}", excerpt(&error.to_string())))
            })?
        }
        "stop" => serde_json::from_str(text).ok().filter(Value::is_array).unwrap_or_else(|| Value::from(text)),
        "tool_choice" => serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| Value::from(text)),
        name if PLAIN.contains(&name) => serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::from(text)),
        _ => return Ok(()),
    };
    if fields.insert(name.to_owned(), value).is_some() {
        return Err(ApiError::field(name, format!("{name}: sent twice; send it once")));
    }
    Ok(())
}

fn broken(error: &MultipartError) -> ApiError {
    ApiError::Malformed(format!("the form cannot be read: {}", excerpt(&error.body_text())))
}

#[cfg(test)]
mod tests {
    use vlm_contract::openai::chat::{Content, Stop};

    use super::*;

    async fn form(fields: &[(&str, Option<&str>, &str)]) -> Result<(ChatRequest, Vec<Upload>), ApiError> {
        let mut body = String::new();
        for (name, file, text) in fields {
            let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
            let part = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n");
            body.push_str(&part);
        }
        body += "--X--\r\n";
        raw("multipart/form-data; boundary=X", body).await
    }

    async fn raw(kind: &str, body: String) -> Result<(ChatRequest, Vec<Upload>), ApiError> {
        let request = Request::post("/").header("content-type", kind).body(Body::empty()).unwrap();
        read(request.into_parts().0, Bytes::from(body)).await
    }

    async fn param(fields: &[(&str, Option<&str>, &str)]) -> String {
        form(fields).await.unwrap_err().body().error.param.unwrap()
    }

    #[tokio::test]
    async fn a_question_with_pictures_becomes_one_message() {
        let (request, files) = form(&[
            ("prompt", None, "what?"),
            ("image", Some("a.png"), "bytes a"),
            ("image", None, "data:;base64,aGk="),
            ("max_tokens", None, "5"),
            ("temperature", None, "0.5"),
            ("stream", None, "true"),
            ("stop", None, "5"),
            ("whatever", None, "ignored"),
        ])
        .await
        .unwrap();
        assert!(matches!(&request.messages[0].content, Some(Content::Text(text)) if text == "what?"));
        assert_eq!(request.max_tokens, Some(5));
        assert_eq!(request.stream, Some(true));
        assert_eq!(request.stop, Some(Stop::One("5".into())));
        assert!(matches!(&files[0].picture, Picture::File(bytes) if &bytes[..] == b"bytes a"));
        assert!(matches!(&files[1].picture, Picture::DataUrl(_)));
        assert_eq!(files[1].param, "image[1]");
    }

    #[tokio::test]
    async fn a_conversation_is_json() {
        let messages = r#"[{"role": "user", "content": "hi"}]"#;
        let stop = ("stop", None, r#"["a", "b"]"#);
        let (request, files) = form(&[("messages", None, messages), stop]).await.unwrap();
        assert_eq!(request.messages.len(), 1);
        assert_eq!(request.stop, Some(Stop::Many(vec!["a".into(), "b".into()])));
        assert!(files.is_empty());
    }

    #[tokio::test]
    async fn wrong_fields_are_named() {
        let prompt = ("prompt", None, "x");
        assert_eq!(param(&[]).await, "prompt");
        assert_eq!(param(&[prompt, prompt]).await, "prompt");
        assert_eq!(param(&[prompt, ("messages", None, "[]")]).await, "prompt");
        assert_eq!(param(&[("messages", None, "[")]).await, "messages");
        assert_eq!(param(&[("messages", None, "[{}]")]).await, "messages[0].role");
        assert_eq!(param(&[prompt, ("max_tokens", None, "many")]).await, "max_tokens");
        assert_eq!(param(&[prompt, ("file", Some("a.png"), "x")]).await, "file");
        assert_eq!(param(&[prompt, ("image", None, "a.png")]).await, "image[0]");
    }

    #[tokio::test]
    async fn a_broken_form_is_malformed() {
        for (kind, body) in [
            ("multipart/form-data", "x"),
            ("multipart/form-data; boundary=X", "--X\r\nbroken"),
            ("multipart/form-data; boundary=X", ""),
        ] {
            let error = raw(kind, body.into()).await.unwrap_err();
            assert!(matches!(error, ApiError::Malformed(_)), "{error}");
        }
    }
}

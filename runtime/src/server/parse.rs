//! JSON into the contract's request type. A wrong field is named by its path, such as
//! `messages[0].content[1].image_url`.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;
use serde_json::error::Category;

use super::error::{ApiError, excerpt};

/// Reads a JSON body.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take a list for an object with its fields in order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::Malformed(
            "the body is not valid JSON of a request: expected an object, found a list".into(),
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let request = traced(&mut reader)?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(request)
}

/// Reads the fields of a form, already turned into JSON values.
pub fn fields<T: DeserializeOwned>(fields: Value) -> Result<T, ApiError> {
    traced(fields)
}

fn traced<'de, T, D>(deserializer: D) -> Result<T, ApiError>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| match error.inner().classify() {
        Category::Data => wrong_field(&error.path().to_string(), error.inner()),
        _ => not_json(error.inner()),
    })
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::Malformed(format!("the body is not valid JSON: {}", excerpt(&error.to_string())))
}

fn wrong_field(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    // The place in the text helps nobody who has the path.
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let what = shortened(what)
        .replace("expected u32", "expected a whole number of at least 0")
        .replace("expected i64", "expected a whole number")
        .replace("expected f32", "expected a number")
        .replace("expected i32", "expected a whole number");
    let what = without_type(&what);
    let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let param = match (path, missing) {
        (".", Some(field)) => field.to_owned(),
        (".", None) => return ApiError::Malformed(format!("the body is wrong: {what}")),
        (path, Some(field)) => format!("{path}.{field}"),
        (path, None) => path.to_owned(),
    };
    let message = format!("{param}: {what}");
    ApiError::Field { param, message }
}

/// A message that says of an object what it is to a client, not its type here.
fn without_type(what: &str) -> String {
    let Some((before, name)) = what.split_once("struct ") else { return what.to_owned() };
    let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
    format!("{before}an object{}", &name[end..])
}

/// A message without the middle of a long value that it repeats.
fn shortened(what: &str) -> String {
    const KEPT: usize = 120;
    if what.chars().count() <= 2 * KEPT {
        return what.to_owned();
    }
    let head: String = what.chars().take(KEPT).collect();
    let tail: Vec<char> = what.chars().rev().take(KEPT).collect();
    format!("{head}…{}", tail.into_iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use vlm_contract::openai::chat::ChatRequest;

    use super::*;

    fn wrong(body: &str) -> (Option<String>, String) {
        let detail = json::<ChatRequest>(body.as_bytes()).unwrap_err().body().error;
        (detail.param, detail.message)
    }

    fn param(body: &str) -> String {
        let (param, message) = wrong(body);
        param.unwrap_or_else(|| panic!("no param: {message}"))
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let hi = r#"{"role": "user", "content": "hi"}"#;
        assert_eq!(param(r#"{"messages": 1}"#), "messages");
        assert_eq!(param(r#"{"messages": [{"role": "user", "content": 5}]}"#), "messages[0].content");
        assert_eq!(param(r#"{"messages": [{"role": "pope"}]}"#), "messages[0].role");
        assert_eq!(param(&format!(r#"{{"messages": [{hi}], "max_tokens": "x"}}"#)), "max_tokens");
        assert_eq!(param(&format!(r#"{{"messages": [{hi}], "max_tokens": -1}}"#)), "max_tokens");
        assert_eq!(param(&format!(r#"{{"messages": [{hi}], "stop": [1]}}"#)), "stop[0]");
        assert_eq!(param(&format!(r#"{{"messages": [{hi}], "model": 7}}"#)), "model");
        assert_eq!(
            param(&format!(r#"{{"messages": [{hi}], "stream_options": {{"include_usage": 1}}}}"#)),
            "stream_options.include_usage"
        );
    }

    #[test]
    fn a_wrong_part_is_named_by_its_path() {
        let part = |part: &str| param(&format!(r#"{{"messages": [{{"role": "user", "content": [{part}]}}]}}"#));
        assert_eq!(part(r#"{"type": "text", "text": 5}"#), "messages[0].content[0].text");
        assert_eq!(part(r#"{"type": "text"}"#), "messages[0].content[0].text");
        assert_eq!(part(r#"{"type": "image_url", "image_url": {"url": 5}}"#), "messages[0].content[0].image_url.url");
        assert_eq!(part(r#"{"type": "image_url", "image_url": {}}"#), "messages[0].content[0].image_url.url");
        assert_eq!(part(r#"{"type": "image_url", "image_url": "x"}"#), "messages[0].content[0].image_url");
        assert_eq!(part(r#"{"type": "input_audio"}"#), "messages[0].content[0]");
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(param("{}"), "messages");
        assert_eq!(param(r#"{"messages": [{"content": "hi"}]}"#), "messages[0].role");
    }

    #[test]
    fn what_is_no_json_is_said_so() {
        for body in ["", "{", "{\"messages\": [}", "\u{0}", "[[[["] {
            let (param, message) = wrong(body);
            assert_eq!(param, None, "{body}");
            assert!(message.contains("not valid JSON"), "{body}: {message}");
        }
        let hi = r#"{"messages": [{"role": "user"}]} trailing"#;
        assert!(wrong(hi).1.contains("not valid JSON"));
        assert!(wrong("5").1.contains("an object"));
    }

    #[test]
    fn a_long_wrong_value_is_not_repeated() {
        let long = "x".repeat(1_000_000);
        let (param, message) = wrong(&format!(r#"{{"messages": "{long}"}}"#));
        assert_eq!(param.as_deref(), Some("messages"));
        assert!(message.len() < 400 && message.contains("expected a sequence"), "{message}");
    }
}

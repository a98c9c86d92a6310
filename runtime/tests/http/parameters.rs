//! What the official clients' own suites (`tests/clients`) cannot see: what is computed once, forms with every
//! parameter, and the description.

use std::collections::HashSet;

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::server::{Server, about_picture, answer, png};

#[tokio::test]
async fn several_answers_see_a_picture_and_read_a_prompt_once() {
    let server = Server::start(&[]).await;
    let (status, body) = server.ask(&about_picture(&json!({"n": 3, "ignore_eos": true}))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"].as_array().unwrap().len(), 3);
    assert_eq!(body["choices"][2]["message"], body["choices"][0]["message"]);
    let prompt = body["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 36);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(server.metric("vlm_prefix_cache_hit_tokens_total").await, 2 * ((prompt - 1) / 32 * 32));
    assert_eq!(server.metric("vlm_vision_tiles_total").await, 1);
    assert_eq!(server.metric("vlm_prompt_tokens_total").await, prompt);
    assert_eq!(server.metric("vlm_generation_tokens_total").await, 36);
}

#[tokio::test]
async fn more_answers_than_can_ever_wait_are_refused_and_not_queued() {
    let server = Server::start(&["--max-concurrency", "1", "--max-queue", "1"]).await;
    let (status, body) = server.ask(&about_picture(&json!({"n": 3}))).await;
    assert_eq!((status, &body["error"]["param"]), (400, &json!("n")), "{body}");
    assert_eq!(server.ask(&about_picture(&json!({"n": 2}))).await.0, 200);
}

#[tokio::test]
async fn a_form_takes_every_parameter_as_a_field() {
    let server = Server::start(&[]).await;
    let fields = [
        ("max_completion_tokens", "9"),
        ("min_tokens", "2"),
        ("temperature", "0.5"),
        ("top_p", "0.9"),
        ("top_k", "40"),
        ("min_p", "0.01"),
        ("presence_penalty", "0.5"),
        ("frequency_penalty", "-0.5"),
        ("repetition_penalty", "1.1"),
        ("logit_bias", r#"{"70": -100}"#),
        ("seed", "7"),
        ("stop", r#"["~~~", "^^^"]"#),
        ("stop_token_ids", "[5]"),
        ("n", "2"),
        ("ignore_eos", "true"),
        ("logprobs", "true"),
        ("top_logprobs", "3"),
        ("response_format", r#"{"type": "text"}"#),
        ("tools", r#"[{"type": "function", "function": {"name": "f"}}]"#),
        ("tool_choice", "none"),
        ("parallel_tool_calls", "false"),
        ("stream_options", r#"{"include_usage": true}"#),
        ("stream", "false"),
    ];
    let picture = || Part::bytes(png()).file_name("x.png");
    let mut body = about_picture(&json!({}));
    body["messages"] = json!([{"role": "user", "content": body["messages"][0]["content"].clone()}]);
    let mut form = Form::new().text("prompt", "What is shown in this image?").part("image", picture());
    for (name, value) in fields {
        form = form.text(name, value);
        body[name] = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    }
    body.as_object_mut().unwrap().remove("max_tokens");
    let (status, by_form) = answer(server.post().multipart(form).send().await.unwrap()).await;
    assert_eq!(status, 200, "{by_form}");
    let (status, by_json) = server.ask(&body).await;
    assert_eq!(status, 200, "{by_json}");
    assert_eq!(by_form["choices"], by_json["choices"]);
    assert_eq!(by_form["choices"].as_array().unwrap().len(), 2);
    assert_eq!(by_form["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().unwrap().len(), 3);
    for (name, _) in fields {
        let wrong = Form::new().text("prompt", "x").text(name, "{");
        let (status, body) = answer(server.post().multipart(wrong).send().await.unwrap()).await;
        // Any text is a stop string.
        if name != "stop" {
            assert_eq!((status, &body["error"]["param"]), (400, &json!(name)), "{body}");
        }
    }
}

#[tokio::test]
async fn the_description_names_every_route_and_nothing_that_is_missing() {
    let server = Server::start(&[]).await;
    let (status, document) = answer(server.get("/openapi.json").await).await;
    assert_eq!(status, 200);
    let paths: HashSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routes = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/v1/models/{id}"];
    let others = ["/tokenize", "/detokenize", "/health", "/ready", "/metrics"];
    assert_eq!(paths, routes.into_iter().chain(others).collect());
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    references += 1;
                    assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} is missing");
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(references > 40, "{references}");
    let chat = &document["components"]["schemas"]["ChatRequest"];
    assert_eq!(chat["required"], json!(["messages"]));
    assert_eq!(chat["properties"]["temperature"]["maximum"], 2);
}

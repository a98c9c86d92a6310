//! A stream that goes on elsewhere is the same stream.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Response;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use vlm_contract::continuation::{
    CONTENT_TYPE, Head, PATH, SIGNATURE, SIGNED_AT, STATE_PREFIX, StreamState, signed_bytes,
};

use super::server::{PATIENCE, Server, about_picture, answer, events, png, question};

fn gateway() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

async fn server() -> Server {
    let key = BASE64_STANDARD.encode(gateway().public_key());
    Server::start(&["--continuation-public-key", &key, "--max-concurrency", "2"]).await
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Posts a continuation signed by `pair` at `at`, for a body that `change` makes of the right one.
async fn post(server: &Server, head: &Head, body: &[u8], pair: &Ed25519KeyPair, at: u64) -> Response {
    let bytes = [serde_json::to_string(head).unwrap().as_bytes(), b"\n", body].concat();
    let at = at.to_string();
    let signature = pair.sign(&signed_bytes(&at, digest(&SHA256, &bytes).as_ref()));
    let request = server.client.post(format!("{}{PATH}", server.base)).header("content-type", CONTENT_TYPE);
    let request = request.header(SIGNED_AT, at).header(SIGNATURE, BASE64_STANDARD.encode(signature));
    // What it continues has at most hundreds of tokens.
    request.timeout(PATIENCE / 3).body(bytes).send().await.unwrap()
}

/// A head after `tokens`.
fn head(tokens: Vec<u32>) -> Head {
    Head {
        path: "/v1/chat/completions".into(),
        content_type: "application/json".into(),
        id: "chatcmpl-x".into(),
        created: 1,
        seed: 1,
        tokens,
        ended: None,
    }
}

/// One event of a stream: what the gateway learns from it, and what the client gets.
struct Moment {
    state: Option<StreamState>,
    data: String,
}

fn moments(text: &str) -> Vec<Moment> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    let prefix = format!(": {STATE_PREFIX}");
    blocks
        .map(|block| {
            let state = block.lines().find_map(|line| line.strip_prefix(&prefix));
            let data = block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
            Moment { state: state.map(|json| serde_json::from_str(json).unwrap()), data }
        })
        .collect()
}

/// An event without what may differ: a continuation finds more in the cache.
fn comparable(data: &str) -> Value {
    let Ok(mut value) = serde_json::from_str::<Value>(data) else { return Value::from(data) };
    if let Some(usage) = value.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("prompt_tokens_details");
    }
    // Who makes a call names it.
    if let Some(call) = value.pointer_mut("/choices/0/delta/tool_calls/0").and_then(Value::as_object_mut) {
        call.remove("id");
    }
    value
}

/// Whether both are the same, but for how numbers are rounded: what is read at once is added up in another order than
/// what came token by token.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| alike(a, b)))
        }
        _ => a == b,
    }
}

/// Breaks the stream off after every event and continues it; gives the number of cuts and the text.
async fn cut_everywhere(server: &Server, content_type: &str, body: &[u8]) -> (usize, String) {
    let asked = server.post().header("content-type", content_type).header("x-vlm-stream-state", "true");
    let response = asked.body(body.to_vec()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let undisturbed = moments(&response.text().await.unwrap());
    assert_eq!(undisturbed.last().unwrap().data, "[DONE]");
    let first: Value = serde_json::from_str(&undisturbed[0].data).unwrap();
    let ends = undisturbed.iter().position(|moment| moment.data.contains("\"finish_reason\":\"")).unwrap();
    let seed = undisturbed[0].state.as_ref().unwrap().seed;
    let (mut tokens, mut ended) = (Vec::new(), None);
    for cut in 0..ends {
        // An event without goes together with the next.
        let Some(state) = &undisturbed[cut].state else { continue };
        assert_eq!(state.seed, seed);
        tokens.extend_from_slice(&state.tokens);
        ended = state.ended.or(ended);
        let head = Head {
            path: "/v1/chat/completions".into(),
            content_type: content_type.into(),
            id: first["id"].as_str().unwrap().into(),
            created: first["created"].as_u64().unwrap(),
            seed,
            tokens: tokens.clone(),
            ended,
        };
        let response = post(server, &head, body, &gateway(), now()).await;
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        let rest = events(&response.text().await.unwrap());
        let expected: Value = undisturbed[cut + 1..].iter().map(|moment| comparable(&moment.data)).collect();
        let got: Value = rest.iter().map(|data| comparable(data)).collect();
        assert!(alike(&got, &expected), "cut after event {cut}: {got:?} is not {expected:?}");
    }
    (ends, text_of(undisturbed.iter().map(|moment| moment.data.as_str())))
}

/// The text of a stream's events.
fn text_of<'a>(data: impl Iterator<Item = &'a str>) -> String {
    let chunks = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_continuation_equals_the_undisturbed_stream_wherever_it_is_cut() {
    let server = server().await;
    let usage = json!({"include_usage": true});
    let greedy = about_picture(&json!({"stream": true, "stream_options": usage, "max_tokens": 24}));
    let (cuts, _) = cut_everywhere(&server, "application/json", greedy.to_string().as_bytes()).await;
    assert!(cuts > 3, "{cuts}");
    let more = json!({"stream": true, "temperature": 1.2, "top_p": 0.9, "max_tokens": 40, "ignore_eos": true});
    for change in [json!({}), json!({"seed": 42}), json!({"stream_options": usage})] {
        let mut body = about_picture(&more);
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (cuts, _) = cut_everywhere(&server, "application/json", body.to_string().as_bytes()).await;
        assert!(cuts > 10, "{cuts}");
    }
}

#[tokio::test]
async fn stop_strings_and_forms_are_continued_too() {
    let server = server().await;
    let sampled = json!({"stream": true, "temperature": 1.5, "seed": 5, "max_tokens": 60, "ignore_eos": true});
    let (_, text) = cut_everywhere(&server, "application/json", question(&sampled).to_string().as_bytes()).await;
    let middle: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let mut stopping = question(&sampled);
    stopping["stop"] = json!([middle]);
    let (_, cut) = cut_everywhere(&server, "application/json", stopping.to_string().as_bytes()).await;
    assert!(!cut.is_empty() && text.starts_with(&cut) && cut.len() < text.len(), "{cut} of {text}");

    let mut form = Vec::new();
    for (name, value) in [("prompt", "What is shown?"), ("stream", "true"), ("max_tokens", "16"), ("seed", "3")] {
        let part = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    form.extend_from_slice(b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n");
    form.extend_from_slice(&png());
    form.extend_from_slice(b"\r\n--X--\r\n");
    cut_everywhere(&server, "multipart/form-data; boundary=X", &form).await;
}

/// What the sampler knows of the tokens before, and of the answer's form and length, it knows in the middle too.
#[tokio::test]
async fn the_samplers_state_is_continued_with_every_parameter() {
    let server = server().await;
    let schema = json!({"type": "object", "required": ["name", "n"], "additionalProperties": false, "properties": {
        "name": {"type": "string", "maxLength": 12}, "n": {"type": "integer", "minimum": 0, "maximum": 99}}});
    let form = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}});
    let picture = about_picture(&json!({}))["messages"][0]["content"][0].clone();
    let both = json!([{"role": "user", "content": [picture, {"type": "text", "text": "and"}, picture]}]);
    for change in [
        json!({"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.3, "ignore_eos": true}),
        json!({"logit_bias": {"70": 4.0, "71": 4.0, "72": -100}, "ignore_eos": true}),
        // Each ends at once, but for the least length, and would have to be as long again if that began anew.
        json!({"logit_bias": {"2": 100}, "min_tokens": 20}),
        json!({"logit_bias": {"80": 100, "81": 100}, "stop_token_ids": [80], "min_tokens": 20}),
        json!({"response_format": form, "max_tokens": 120}),
        json!({"logprobs": true, "top_logprobs": 5, "ignore_eos": true}),
        json!({"messages": both, "ignore_eos": true}),
    ] {
        let mut body = question(&json!({"stream": true, "temperature": 1.2, "seed": 11, "max_tokens": 40}));
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (cuts, text) = cut_everywhere(&server, "application/json", body.to_string().as_bytes()).await;
        assert!(cuts > 5, "{cuts} in {text} of {change}");
    }
}

/// Tokens that are told may end within a character, which shows only when it is whole.
#[tokio::test]
async fn a_character_that_was_cut_comes_whole() {
    let server = server().await;
    let schema = json!({"enum": ["一只猫🐱 é"]});
    let form = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}});
    let body = question(&json!({"stream": true, "temperature": 0, "max_tokens": 60, "response_format": form}));
    let asked = server.post().header("x-vlm-stream-state", "true").json(&body).send().await.unwrap();
    let whole = moments(&asked.text().await.unwrap());
    let text = text_of(whole.iter().map(|moment| moment.data.as_str()));
    assert_eq!(text, "\"一只猫🐱 é\"");
    let told = whole.iter().filter_map(|moment| moment.state.as_ref());
    let tokens: Vec<u32> = told.flat_map(|state| state.tokens.clone()).collect();
    // Each token of this checkpoint is a byte.
    assert!(tokens.len() >= text.len(), "{tokens:?}");
    for cut in 0..text.len() {
        let body = body.to_string();
        let response = post(&server, &head(tokens[..cut].to_vec()), body.as_bytes(), &gateway(), now()).await;
        let rest = events(&response.text().await.unwrap());
        let shown = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        assert_eq!(text_of(rest.iter().map(String::as_str)), text[shown..], "after {cut} bytes");
        assert_eq!(rest.last().unwrap(), "[DONE]");
    }
}

#[tokio::test]
async fn calls_of_functions_are_counted_on() {
    let server = server().await;
    let limited = json!({"type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": limited}}]);
    let mut most = 0;
    // Whether another call follows is drawn as well.
    for seed in 0..40 {
        let body = question(&json!({"stream": true, "temperature": 1.0, "seed": seed, "max_tokens": 300,
            "tools": tools, "tool_choice": "required"}));
        let text = server.post().json(&body).send().await.unwrap().text().await.unwrap();
        let indexes: Vec<u64> = events(&text)
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0/id").is_some())
            .filter_map(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0/index")?.as_u64())
            .collect();
        assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>(), "{text}");
        most = most.max(indexes.len());
        if indexes.len() >= 3 {
            cut_everywhere(&server, "application/json", body.to_string().as_bytes()).await;
            return;
        }
    }
    panic!("no answer has three calls, but {most} at most");
}

#[tokio::test]
async fn nobody_but_the_gateway_continues_anything() {
    let server = server().await;
    let body = question(&json!({"stream": true})).to_string();
    let head = head(vec![5, 6]);
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    for (pair, at) in [(&stranger, now()), (&gateway(), now() - 60), (&gateway(), now() + 60)] {
        let (status, refused) = answer(post(&server, &head, body.as_bytes(), pair, at).await).await;
        assert_eq!((status, refused["error"]["code"].as_str()), (401, Some("invalid_signature")), "{refused}");
    }
    let unsigned = server.client.post(format!("{}{PATH}", server.base)).body(body.clone()).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert_eq!(post(&server, &head, body.as_bytes(), &gateway(), now()).await.status(), 200);
    // Nor anything but a stream of one answer of a chat.
    let text = json!({"model": "tiny", "prompt": "hi", "stream": true}).to_string();
    let response = json!({"model": "tiny", "input": "hi", "stream": true}).to_string();
    let whole = question(&json!({})).to_string();
    let two = question(&json!({"stream": true, "n": 2})).to_string();
    for (path, body, why) in [
        ("/v1/models", body.as_str(), "an answer of /v1/models cannot be continued"),
        ("/v1/completions", text.as_str(), "an answer of /v1/completions cannot be continued"),
        ("/v1/responses", response.as_str(), "an answer of /v1/responses cannot be continued"),
        ("/v1/chat/completions", whole.as_str(), "only streams of one answer"),
        ("/v1/chat/completions", two.as_str(), "only streams of one answer"),
        ("/v1/chat/completions", "{", "not valid JSON"),
    ] {
        let head = Head { path: path.into(), ..head.clone() };
        let (status, refused) = answer(post(&server, &head, body.as_bytes(), &gateway(), now()).await).await;
        assert_eq!(status, 400, "{path} {body}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(why), "{path} {body}: {refused}");
    }
    let without = Server::start(&[]).await;
    assert_eq!(post(&without, &head, body.as_bytes(), &gateway(), now()).await.status(), 404);
}

#[tokio::test]
async fn an_answer_that_was_complete_but_for_its_end_is_only_ended() {
    let server = server().await;
    let body = question(&json!({"stream": true, "max_tokens": 3, "ignore_eos": true})).to_string();
    let head = head(vec![5, 6, 7]);
    let text = post(&server, &head, body.as_bytes(), &gateway(), now()).await.text().await.unwrap();
    let events = events(&text);
    assert!(events.iter().any(|event| event.contains("\"finish_reason\":\"length\"")), "{text}");
    assert_eq!(events.last().unwrap(), "[DONE]");
}

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
        let expected: Vec<Value> = undisturbed[cut + 1..].iter().map(|moment| comparable(&moment.data)).collect();
        let got: Vec<Value> = rest.iter().map(|data| comparable(data)).collect();
        assert_eq!(got, expected, "cut after event {cut}");
    }
    let chunks = undisturbed.iter().filter_map(|moment| serde_json::from_str::<Value>(&moment.data).ok());
    let text = chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned));
    (ends, text.collect())
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
    let head = Head {
        path: "/v1/chat/completions".into(),
        content_type: "application/json".into(),
        id: "chatcmpl-x".into(),
        created: 1,
        seed: 1,
        tokens: vec![5, 6],
        ended: None,
    };
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    for (pair, at) in [(&stranger, now()), (&gateway(), now() - 60), (&gateway(), now() + 60)] {
        let (status, refused) = answer(post(&server, &head, body.as_bytes(), pair, at).await).await;
        assert_eq!((status, refused["error"]["code"].as_str()), (401, Some("invalid_signature")), "{refused}");
    }
    let unsigned = server.client.post(format!("{}{PATH}", server.base)).body(body.clone()).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert_eq!(post(&server, &head, body.as_bytes(), &gateway(), now()).await.status(), 200);
    let elsewhere = Head { path: "/v1/models".into(), ..head.clone() };
    let whole = question(&json!({})).to_string();
    for (head, body) in [(&elsewhere, body.as_str()), (&head, whole.as_str()), (&head, "{")] {
        assert_eq!(post(&server, head, body.as_bytes(), &gateway(), now()).await.status(), 400);
    }
    let without = Server::start(&[]).await;
    assert_eq!(post(&without, &head, body.as_bytes(), &gateway(), now()).await.status(), 404);
}

#[tokio::test]
async fn an_answer_that_was_complete_but_for_its_end_is_only_ended() {
    let server = server().await;
    let body = question(&json!({"stream": true, "max_tokens": 3, "ignore_eos": true})).to_string();
    let head = Head {
        path: "/v1/chat/completions".into(),
        content_type: "application/json".into(),
        id: "chatcmpl-x".into(),
        created: 1,
        seed: 1,
        tokens: vec![5, 6, 7],
        ended: None,
    };
    let text = post(&server, &head, body.as_bytes(), &gateway(), now()).await.text().await.unwrap();
    let events = events(&text);
    assert!(events.iter().any(|event| event.contains("\"finish_reason\":\"length\"")), "{text}");
    assert_eq!(events.last().unwrap(), "[DONE]");
}

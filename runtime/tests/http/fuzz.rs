//! Random bodies: whatever comes, it is an answer or a 4xx with a body, never a 5xx.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use vlm_contract::openai::error::ErrorBody;

use super::server::{Server, data_url};

/// Any JSON value of a small size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from(data_url())),
        Just(Value::from("<image>")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 19] = [
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "max_tokens",
    "stream",
    "stream_options",
    "include_usage",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "n",
    "model",
    "max_completion_tokens",
    "ignore_eos",
];

fn field() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&FIELDS[..]).prop_map(ToOwned::to_owned), 1 => ".{0,6}"]
}

/// Something close to a message.
fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(&["user", "assistant", "system", "developer", "tool"][..]);
    let part = prop_oneof![
        ".{0,20}".prop_map(|text| json!({"type": "text", "text": text})),
        Just(json!({"type": "image_url", "image_url": {"url": data_url()}})),
        any_json(),
    ];
    let content = prop_oneof![
        ".{0,20}".prop_map(Value::from),
        prop::collection::vec(part, 0..4).prop_map(Value::from),
        any_json(),
    ];
    (role, content).prop_map(|(role, content)| json!({"role": role, "content": content}))
}

/// Something close to a request, with a few fields replaced by anything.
fn body() -> impl Strategy<Value = Value> {
    let messages = prop::collection::vec(message(), 0..4);
    let changes = prop::collection::vec((field(), any_json()), 0..3);
    (messages, changes).prop_map(|(messages, changes)| {
        let mut body = json!({"messages": messages, "max_tokens": 4});
        for (name, value) in changes {
            body[name] = value;
        }
        body
    })
}

#[test]
fn random_bodies_never_give_a_5xx() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(&["--max-tokens", "128"]));
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::default() });
    let texts = prop_oneof![
        6 => body().prop_map(|body| body.to_string().into_bytes()),
        1 => any_json().prop_map(|body| body.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ];
    let result = runner.run(&texts, |text| {
        let request = server.post().header(CONTENT_TYPE, "application/json").body(text.clone());
        let (status, answer) = runtime.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        prop_assert!(status < 500, "{status}: {answer}\n{}", String::from_utf8_lossy(&text));
        if status != 200 {
            prop_assert!(serde_json::from_str::<ErrorBody>(&answer).is_ok(), "{answer}");
        }
        Ok(())
    });
    result.unwrap();
}

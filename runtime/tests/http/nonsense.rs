//! Weights that compute nonsense for some texts: those requests end with an error and are counted, the others go on.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::server::{Server, checkpoint, events, question};

const EMBEDDING: &str = "language_model.model.embed_tokens.weight";

/// The tiny checkpoint, but the embedding of the letter `letter` is not a number.
fn broken_for(letter: &str, dir: &Path) -> usize {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for entry in std::fs::read_dir(checkpoint()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("model-") {
            tensors.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        } else if path.is_file() && !name.starts_with("model") {
            std::fs::copy(&path, dir.join(name)).unwrap();
        }
    }
    let tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    let id = tokenizer["model"]["vocab"][letter].as_u64().unwrap() as usize;
    let mut rows: Vec<Vec<f32>> = tensors[EMBEDDING].to_vec2().unwrap();
    rows[id].fill(f32::NAN);
    tensors.insert(EMBEDDING.to_owned(), Tensor::new(rows, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
    id
}

#[tokio::test]
async fn numbers_that_are_not_finite_end_the_request_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    broken_for("Z", dir.path());
    let server = Server::start_on(dir.path(), &[]).await;
    let ask = |text: &str, stream: bool| {
        question(&json!({"messages": [{"role": "user", "content": text}], "stream": stream, "temperature": 0}))
    };
    let (status, answer) = server.ask(&ask("Zebra?", false)).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("not finite"), "{answer}");
    let streamed = server.post().json(&ask("a Zebra", true)).send().await.unwrap().text().await.unwrap();
    let last = events(&streamed).pop().unwrap();
    assert!(last.contains("not finite") && !last.contains("choices"), "{streamed}");
    assert_eq!(server.metric("vlm_requests_finished_total{reason=\"not_finite\"}").await, 2);
    assert_eq!(server.metric("vlm_requests_finished_total{reason=\"error\"}").await, 0);
    assert_eq!(server.ask(&ask("hi", false)).await.0, 200);
}

#[tokio::test]
async fn an_error_after_the_first_text_is_an_event_and_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let id = broken_for("Z", dir.path());
    let server = Server::start_on(dir.path(), &[]).await;
    let asked = question(&json!({"logit_bias": {id.to_string(): 100}, "stream": true, "max_tokens": 9}));
    let response = server.post().json(&asked).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut events = events(&response.text().await.unwrap());
    let last: serde_json::Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "engine_error", "{last}");
    assert_eq!(last["error"]["type"], "server_error");
    let said: Vec<serde_json::Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1]["choices"][0]["delta"]["content"], "Z");
    assert_eq!(said[1]["choices"][0]["finish_reason"], serde_json::Value::Null);
}

//! A load of long answers, as a client would put it on a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::tools::root;
use base64::Engine as _;
use serde_json::{Value, json};

/// A chat request with one picture of the references.
pub fn question(picture: &str, text: &str, max_tokens: u32) -> Value {
    let bytes = std::fs::read(root().join("examples/tiny-llava").join(picture)).expect("picture");
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({"model": "tiny-llava", "temperature": 0, "max_tokens": max_tokens, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}},
        {"type": "text", "text": text}]}]})
}

/// A request that generates exactly `tokens` tokens.
pub fn long_question(tokens: u32) -> Value {
    let mut body = question("demo.png", "Describe the picture.", tokens);
    body["ignore_eos"] = json!(true);
    body
}

/// Requests kept in flight until stopped.
pub struct Load {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Keeps `in_flight` requests of `body` at `base`; a 429 is waited out, anything else but 200 is a failure.
    pub fn start(base: &str, in_flight: usize, body: &Value) -> Self {
        let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("client");
        let tasks = (0..in_flight)
            .map(|_| {
                let (url, body) = (format!("{base}/v1/chat/completions"), body.clone());
                let (client, ended, answered) = (client.clone(), ended.clone(), answered.clone());
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        match ask(&client, &url, &body).await {
                            Ok(true) => _ = answered.fetch_add(1, Ordering::Relaxed),
                            Ok(false) => tokio::time::sleep(Duration::from_millis(500)).await,
                            Err(failure) => failures.push(failure),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { ended, answered, tasks }
    }

    /// Lets what is in flight finish; returns how many were answered, and every failure.
    pub async fn stop(self) -> (usize, Vec<String>) {
        self.ended.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.expect("task"));
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

async fn ask(client: &reqwest::Client, url: &str, body: &Value) -> Result<bool, String> {
    let response = client.post(url).json(body).send().await.map_err(|e| format!("{e:?}"))?;
    match response.status().as_u16() {
        200 => response.bytes().await.map(|_| true).map_err(|e| format!("{e:?}")),
        429 => Ok(false),
        other => Err(format!("{other}: {}", response.text().await.unwrap_or_default())),
    }
}

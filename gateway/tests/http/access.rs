//! What the access log tells of a request, and what it does not: no key, no address' query, nothing of the body.

use std::{cell::RefCell, io};

use serde_json::{Value, json};

use crate::gateway::{Gateway, await_that};
use crate::replica::{Mood, Replica, raw};

thread_local! {
    /// What this thread has logged: each test has one of its own, on which all of its gateway runs.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct OfThread;

impl io::Write for OfThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to keep what this thread logs.
fn listen() {
    LOG.set(Some(Vec::new()));
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| OfThread);
    tracing::subscriber::set_global_default(lines.with_env_filter("vlm_gateway=trace").finish()).unwrap();
    // What another test asked in between is asked again.
    tracing::callsite::rebuild_interest_cache();
}

fn log() -> String {
    LOG.with_borrow(|log| String::from_utf8(log.clone().unwrap()).unwrap())
}

/// The lines of requests.
fn requests() -> Vec<Value> {
    let lines = log().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    lines.into_iter().filter(|line| line["message"] == "request").collect()
}

const KEY: &str = "sk-0123456789abcdef";
const TEXT: &str = "the colour of my umbrella";
const PICTURE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB";

fn body(stream: bool) -> String {
    let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PICTURE}")}});
    let content = json!([{"type": "text", "text": TEXT}, picture]);
    json!({"model": "tiny", "stream": stream, "messages": [{"role": "user", "content": content}]}).to_string()
}

#[tokio::test]
async fn the_access_log_names_requests_and_nothing_in_them() {
    listen();
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    let ask = |id: &str, body: String| {
        let request = gateway.client.post(gateway.url("/v1/chat/completions?key=query-secret")).bearer_auth(KEY);
        let request = request.header("cookie", "session=cookie-secret").header("x-request-id", id);
        request.header("content-type", "application/json").body(body).send()
    };
    gateway.replicas(&[replica.address]);
    let answer = ask("req-whole", body(false)).await.unwrap().text().await.unwrap();
    assert!(answer.contains(TEXT) && answer.contains(PICTURE), "{answer}");
    let mut malformed = body(false);
    malformed.pop();
    assert_eq!(ask("req-malformed", malformed).await.unwrap().status(), 400);
    assert_eq!(ask("req-unknown", body(false).replace("tiny", "model-secret")).await.unwrap().status(), 404);
    gateway.replicas(&[]);
    let held = tokio::spawn(ask("req-held", body(true)));
    gateway.await_counts(1, 0).await;
    gateway.replicas(&[replica.address]);
    assert!(held.await.unwrap().unwrap().text().await.unwrap().contains(TEXT));
    gateway.replicas(&[raw("HTTP/1.1 200 OK\r\ncontent-type: text/answer-secret\r\n\r\nanswer-secret").await]);
    assert_eq!(ask("req-failed", body(false)).await.unwrap().status(), 502);
    await_that(|| requests().len() == 5, "all are in the log").await;
    let mut told: Vec<_> = requests()
        .iter()
        .map(|line| {
            let word = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            assert_eq!(word("path"), "/v1/chat/completions");
            (word("request_id"), word("namespace") + "/" + &word("model"), line["status"].as_u64().unwrap())
        })
        .collect();
    told.sort();
    let line = |id: &str, model: &str, status| (id.to_owned(), model.to_owned(), status);
    let expected = [
        line("req-failed", "shop/tiny", 502),
        line("req-held", "shop/tiny", 200),
        line("req-malformed", "-/-", 400),
        line("req-unknown", "-/-", 404),
        line("req-whole", "shop/tiny", 200),
    ];
    assert_eq!(told, expected);
    let log = log();
    for content in [KEY, TEXT, PICTURE, "query-secret", "cookie-secret", "model-secret", "answer-secret", "umbrella"] {
        assert!(!log.contains(content), "{content} is in\n{log}");
    }
}

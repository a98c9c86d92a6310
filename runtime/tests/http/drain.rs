//! SIGTERM: nothing that was accepted is lost, and the process ends with 0.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::loading::{GEOMETRY, random};
use super::server::{Server, answer, events, long, question};

/// A request of which everything but the last byte is sent.
async fn unfinished(server: &Server) -> TcpStream {
    let body = question(&json!({})).to_string();
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
    server
        .until("the request arrived", async || server.metric("vlm_requests_arrived_total{via=\"direct\"}").await > 0)
        .await;
    stream
}

#[tokio::test]
async fn streams_that_run_at_the_signal_are_complete() {
    let mut server = Server::start(&["--max-concurrency", "1", "--drain-accept-seconds", "0"]).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(server.post().json(&long(&json!({}))).send().await.unwrap());
    }
    server.terminate();
    for response in join_all(streams.into_iter().map(reqwest::Response::text)).await {
        let events = events(&response.unwrap());
        assert_eq!(events.last().unwrap(), "[DONE]");
        assert!(events[events.len() - 2].contains("\"finish_reason\":\"length\""));
    }
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn a_draining_server_is_not_ready_but_serves_then_refuses_then_ends() {
    let mut server = Server::start(&["--drain-accept-seconds", "2"]).await;
    let mut pending = unfinished(&server).await;
    server.terminate();
    server.until("not ready", async || server.get("/ready").await.status() == 503).await;
    assert_eq!(answer(server.get("/ready").await).await.1, json!({"status": "draining"}));
    let late = server.post().json(&question(&json!({}))).send().await.unwrap();
    assert_eq!(late.status(), 200);
    assert_eq!(late.headers()["connection"], "close");
    drop(late);
    server
        .until("new requests are refused", async || {
            let response = server.post().json(&question(&json!({}))).send().await.unwrap();
            let after = response.headers().get("retry-after").cloned();
            let (status, body) = answer(response).await;
            if status == 200 {
                return false;
            }
            assert_eq!(status, 503);
            assert_eq!(after.unwrap(), "0");
            assert_eq!(body["error"]["code"], "server_draining");
            true
        })
        .await;
    assert_eq!(server.get("/health").await.status(), 200);
    pending.write_all(b"}").await.unwrap();
    let mut response = String::new();
    pending.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("finish_reason"), "{response}");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_server_that_still_loads_ends_at_once() {
    let model = random(&GEOMETRY);
    let words = ["--quantization", "int4", "--max-tokens", "256", "--drain-accept-seconds", "100"];
    let mut server = Server::begin(model.path(), &words, &[]);
    assert_eq!(answer(server.get("/ready").await).await.1["status"], "loading");
    let begun = Instant::now();
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(!server.log().contains("warmed up"), "{}", server.log());
}

#[tokio::test]
async fn two_hundred_streams_that_run_and_wait_at_the_signal_all_end_properly() {
    let words = ["--max-concurrency", "16", "--max-queue", "400", "--drain-timeout-seconds", "60"];
    let mut server = Server::start(&[&words[..], &["--drain-accept-seconds", "0"]].concat()).await;
    let asking = (0..200).map(|_| server.post().json(&long(&json!({"max_tokens": 48}))).send());
    let streams: Vec<_> = join_all(asking).await.into_iter().map(Result::unwrap).collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    server.until("some tokens came", async || server.metric("vlm_generation_tokens_total").await > 200).await;
    // From now on nothing is taken on, and everything that was is finished.
    assert!(server.metric("vlm_requests_waiting{stage=\"queue\"}").await > 0);
    server.terminate();
    for response in join_all(streams.into_iter().map(reqwest::Response::text)).await {
        let events = events(&response.unwrap());
        assert_eq!(events.last().unwrap(), "[DONE]");
        assert!(events[events.len() - 2].contains("\"finish_reason\":\"length\""));
        assert!(!events.iter().any(|event| event.starts_with("{\"error\"")));
    }
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn at_the_deadline_answers_are_cut_with_an_error() {
    let mut server = Server::start(&["--max-concurrency", "1", "--drain-timeout-seconds", "0"]).await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(server.post().json(&long(&json!({}))).send().await.unwrap());
    }
    server.terminate();
    let mut cut = 0;
    for response in join_all(streams.into_iter().map(reqwest::Response::text)).await {
        let events = events(&response.unwrap());
        let last = events.last().unwrap();
        if last != "[DONE]" {
            cut += 1;
            assert!(last.contains("server_draining") && last.starts_with("{\"error\""), "{last}");
        }
    }
    assert!(cut > 0);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn answers_have_until_the_deadline_and_no_longer() {
    let words = ["--max-concurrency", "1", "--max-queue", "400", "--drain-accept-seconds", "0"];
    let mut server = Server::start(&[&words[..], &["--drain-timeout-seconds", "2"]].concat()).await;
    // One after another they take many times as long.
    let asking = (0..300).map(|_| server.post().json(&long(&json!({}))).send());
    let streams: Vec<_> = join_all(asking).await.into_iter().map(Result::unwrap).collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let begun = Instant::now();
    server.terminate();
    let ended = streams.into_iter().map(|stream| async move { (stream.text().await.unwrap(), begun.elapsed()) });
    let ended = join_all(ended).await;
    let cut: Vec<Duration> =
        ended.iter().filter(|(text, _)| !text.ends_with("data: [DONE]\n\n")).map(|(_, after)| *after).collect();
    assert!(cut.len() > 150, "{} cut", cut.len());
    let allowed = Duration::from_millis(1950)..Duration::from_secs(8);
    assert!(cut.iter().all(|after| allowed.contains(after)), "{cut:?}");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_never_finishes_sending_cannot_hold_the_process() {
    let mut server = Server::start(&["--drain-timeout-seconds", "1"]).await;
    let _pending = unfinished(&server).await;
    let begun = Instant::now();
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(14));
}

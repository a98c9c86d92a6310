//! A client with many requests and one with a single one.

use futures::future::join_all;
use reqwest::Response;
use serde_json::json;

use super::server::{Server, events, long, question};

const KEYS: &str = "sk-the-greedy-clients-key\nsk-the-modest-clients-key";

/// Requests that have ended.
async fn finished(server: &Server) -> u64 {
    server.metric("vlm_requests_finished_total{reason=\"length\"}").await
}

/// A hundred requests of one client wait, and one of another comes; `name` says who asks.
async fn one_does_not_wait_for_a_hundred(server: &Server, name: (&str, [&str; 2])) {
    let (header, [greedy, modest]) = name;
    let body = long(&json!({"max_tokens": 250}));
    let post = |client: &str| server.post().header(header, client).header("x-vlm-via", "gateway");
    let asking = (0..100).map(|_| post(greedy).json(&body).send());
    let streams = join_all(asking).await.into_iter().map(Result::unwrap);
    let streams: Vec<Response> = streams.collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let before = finished(server).await;
    assert!(server.metric("vlm_requests_waiting{stage=\"queue\"}").await > 50);
    let answer = post(modest).json(&question(&json!({"max_tokens": 1})));
    assert_eq!(answer.send().await.unwrap().status(), 200);
    let ended = finished(server).await - before;
    // The two that ran, the two that may have been handed over already, itself, and those since.
    assert!(ended <= 8, "{ended} requests ended before the one of the other client did");
    for response in join_all(streams.into_iter().map(Response::text)).await {
        assert_eq!(events(&response.unwrap()).last().unwrap(), "[DONE]");
    }
}

#[tokio::test]
async fn a_hundred_requests_of_one_client_delay_another_by_a_batch_at_most() {
    let words = ["--max-concurrency", "2", "--max-queue", "200"];
    let server = Server::start(&words).await;
    one_does_not_wait_for_a_hundred(&server, ("x-vlm-client", ["greedy", "modest"])).await;
    assert!(server.metric("vlm_requests_arrived_total{via=\"gateway\"}").await == 101);
}

#[tokio::test]
async fn keys_tell_clients_apart_too() {
    let words = ["--max-concurrency", "2", "--max-queue", "200"];
    let server = keyed(&words).await;
    let keys = ["Bearer sk-the-greedy-clients-key", "Bearer sk-the-modest-clients-key"];
    one_does_not_wait_for_a_hundred(&server, ("authorization", keys)).await;
}

async fn keyed(words: &[&str]) -> Server {
    Server::start_in(&super::server::checkpoint(), words, &[("VLM_API_KEY", KEYS)]).await
}

#[tokio::test]
async fn a_client_that_takes_all_places_leaves_some_for_others() {
    let server = Server::start(&["--max-concurrency", "1", "--max-queue", "31"]).await;
    let body = long(&json!({"max_tokens": 200}));
    let asking = (0..64).map(|_| server.post().header("x-vlm-client", "greedy").json(&body).send());
    let streams: Vec<Response> = join_all(asking).await.into_iter().map(Result::unwrap).collect();
    assert!(streams.iter().any(|stream| stream.status() == 429));
    let modest = server.post().header("x-vlm-client", "modest").json(&question(&json!({"max_tokens": 1})));
    assert_eq!(modest.send().await.unwrap().status(), 200);
}

//! A client with many requests and one with a single one.

use std::net::Ipv4Addr;

use futures::future::join_all;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::json;

use super::server::{Server, checkpoint, events, long, question};

const WORDS: [&str; 4] = ["--max-concurrency", "2", "--max-queue", "200"];
const KEYS: &str = "sk-the-greedy-clients-key\nsk-the-modest-clients-key";

/// One of two clients.
#[derive(Clone, Copy)]
enum Who {
    Greedy,
    Modest,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Modest => "modest",
        }
    }
}

/// Requests that have ended.
async fn finished(server: &Server) -> u64 {
    server.metric("vlm_requests_finished_total{reason=\"length\"}").await
}

/// A hundred requests of one client wait, and one of another comes; `post` asks as the one or the other.
async fn one_does_not_wait_for_a_hundred(server: &Server, post: impl Fn(Who) -> RequestBuilder) {
    let body = long(&json!({"max_tokens": 250}));
    let asking = (0..100).map(|_| post(Who::Greedy).json(&body).send());
    let streams = join_all(asking).await.into_iter().map(Result::unwrap);
    let streams: Vec<Response> = streams.collect();
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let before = finished(server).await;
    assert!(server.metric("vlm_requests_waiting{stage=\"queue\"}").await > 50);
    let answer = post(Who::Modest).json(&question(&json!({"max_tokens": 1})));
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
    let server = Server::start(&WORDS).await;
    let post = |who: Who| server.post().header("x-vlm-client", who.name()).header("x-vlm-via", "gateway");
    one_does_not_wait_for_a_hundred(&server, post).await;
    assert!(server.metric("vlm_requests_arrived_total{via=\"gateway\"}").await == 101);
}

#[tokio::test]
async fn keys_tell_clients_apart_whatever_they_call_themselves() {
    let server = Server::start_in(&checkpoint(), &WORDS, &[("VLM_API_KEY", KEYS)]).await;
    let post = |who: Who| {
        let key = format!("sk-the-{}-clients-key", who.name());
        server.post().bearer_auth(key).header("x-vlm-client", "both")
    };
    one_does_not_wait_for_a_hundred(&server, post).await;
}

#[tokio::test]
async fn addresses_tell_clients_apart_that_say_nothing() {
    let server = Server::start(&WORDS).await;
    let elsewhere = Client::builder().local_address(Some(Ipv4Addr::new(127, 0, 0, 2).into())).build().unwrap();
    let post = |who: Who| match who {
        Who::Greedy => server.post(),
        Who::Modest => elsewhere.post(format!("{}/v1/chat/completions", server.base)),
    };
    one_does_not_wait_for_a_hundred(&server, post).await;
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

//! More requests than places, and clients that leave.

use std::time::Instant;

use futures::StreamExt;
use futures::future::join_all;
use serde_json::json;

use super::loading::{GEOMETRY, random};
use super::random_llava::Geometry;
use super::server::{Server, answer, events, long, question};

#[tokio::test]
async fn one_request_too_many_is_429_with_a_time_to_wait() {
    let server = Server::start(&["--max-concurrency", "1", "--max-queue", "1"]).await;
    let requests = (0..32).map(|_| async {
        let response = server.post().json(&long(&json!({"stream": false}))).send().await.unwrap();
        let after = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        (answer(response).await, after)
    });
    let mut refused = 0;
    for ((status, body), after) in join_all(requests).await {
        if status == 200 {
            assert_eq!(body["usage"]["completion_tokens"], 900);
            continue;
        }
        refused += 1;
        assert_eq!(status, 429, "{body}");
        assert_eq!(body["error"]["code"], "queue_full");
        assert_eq!(body["error"]["type"], "rate_limit_error");
        assert!((1..=60).contains(&after.unwrap().parse::<u64>().unwrap()));
    }
    assert!((1..=30).contains(&refused), "{refused} refused");
    let counted = server.metric("vlm_requests_refused_total{reason=\"queue_full\"}").await;
    assert_eq!(counted, refused);
    let finished = server.metric("vlm_requests_finished_total{reason=\"length\"}").await;
    assert_eq!(finished + refused, 32);
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
}

#[tokio::test]
async fn the_time_to_wait_follows_from_how_long_answers_took() {
    let model = random(&Geometry { layers: 4, ..GEOMETRY });
    let words = ["--max-tokens", "512", "--max-concurrency", "1", "--max-queue", "8"];
    let server = Server::start_on(model.path(), &words).await;
    let body = question(&json!({"max_tokens": 100, "ignore_eos": true, "stream": true}));
    let begun = Instant::now();
    let first = server.post().json(&body).send().await.unwrap().text().await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(first.ends_with("data: [DONE]\n\n"), "{first}");
    // One runs and eight wait; a stream that has begun has its place.
    let mut streams = Vec::new();
    let refused = loop {
        let response = server.post().json(&body).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        streams.push(response);
        assert!(streams.len() < 50, "there is no end of places");
    };
    let told: f64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(answer(refused).await.0, 429);
    let expected = (9.0 * seconds).min(60.0);
    println!("told {told} s; an answer took {seconds} s, and nine take {expected} s");
    assert!(expected > 3.0, "answers of {seconds} s are too quick to tell");
    assert!((expected / 2.0..=2.0 * expected).contains(&told), "{told} s, not about {expected} s");
}

#[tokio::test]
async fn several_streams_run_at_once_and_are_all_complete() {
    let server = Server::start(&["--max-concurrency", "4"]).await;
    let streams = (0..12).map(|_| async {
        let response = server.post().json(&long(&json!({"max_tokens": 200}))).send().await.unwrap();
        assert_eq!(response.status(), 200);
        events(&response.text().await.unwrap())
    });
    let all = join_all(streams).await;
    let texts = all.iter().map(|events| {
        assert_eq!(events.last().unwrap(), "[DONE]");
        let chunks = events.iter().filter_map(|e| serde_json::from_str::<serde_json::Value>(e).ok());
        chunks
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned))
            .collect::<String>()
    });
    let texts: Vec<String> = texts.collect();
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()));
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_its_place() {
    let server = Server::start(&["--max-concurrency", "1"]).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let response = server.post().json(&long(&json!({}))).send().await.unwrap();
        let mut bytes = response.bytes_stream();
        assert!(bytes.next().await.unwrap().is_ok());
        streams.push(bytes);
    }
    drop(streams);
    left(&server).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_frees_its_place() {
    let server = Server::start(&["--max-concurrency", "1"]).await;
    let asking: Vec<_> =
        (0..4).map(|_| tokio::spawn(server.post().json(&long(&json!({"stream": false}))).send())).collect();
    server.until("one runs", async || server.metric("vlm_requests_running").await > 0).await;
    for request in asking {
        request.abort();
    }
    left(&server).await;
}

#[tokio::test]
async fn a_stream_that_waits_its_turn_says_that_it_lives() {
    let words = ["--max-concurrency", "1", "--max-queue", "200", "--keep-alive-seconds", "1"];
    let server = Server::start(&words).await;
    // So many that the last waits for seconds on a machine that is quick, too.
    let waiting: Vec<_> = (0..64).map(|_| tokio::spawn(server.post().json(&long(&json!({}))).send())).collect();
    let mut quiet = 0;
    for stream in waiting {
        let text = stream.await.unwrap().unwrap().text().await.unwrap();
        quiet += text.matches(": keep-alive\n\n").count();
        assert_eq!(events(&text).pop().as_deref(), Some("[DONE]"));
    }
    assert!(quiet > 0);
}

/// Waits until nothing runs or waits; some requests were cancelled, and the next is answered.
async fn left(server: &Server) {
    server
        .until("the places are free", async || {
            server.metric("vlm_requests_running").await == 0
                && server.metric("vlm_requests_waiting{stage=\"queue\"}").await == 0
        })
        .await;
    server
        .until("a request is counted as cancelled", async || {
            server.metric("vlm_requests_finished_total{reason=\"cancelled\"}").await > 0
        })
        .await;
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
    assert!(server.metric("vlm_generation_tokens_total").await < 3000);
}

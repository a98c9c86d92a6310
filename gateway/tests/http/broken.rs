//! Answers that break off after their first byte, and a gateway that leaves.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gateway::{Gateway, question, streamed};
use crate::replica::{Mood, Replica, endless, raw};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                      9\r\ndata: 0\n\n\r\nc\r\ndata: 1\n\ndat\r\n";

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_event_that_says_so() {
    let gateway = Gateway::start().await;
    gateway.replicas(&[raw(EVENTS).await]);
    let text = gateway.ask(&streamed()).send().await.unwrap().text().await.unwrap();
    let events: Vec<_> = text.trim_end().split("\n\n").collect();
    assert_eq!(events[..2], ["data: 0", "data: 1"]);
    assert!(events[2].starts_with("data: {\"error\":") && events[2].contains("answer_broken"), "{text}");
    assert_eq!(events.len(), 3, "the half of an event is left out");
    assert!(gateway.page().contains("vlm_gateway_answers_broken_total 1"));
}

#[tokio::test]
async fn a_stream_that_breaks_off_before_its_first_event_is_had_elsewhere() {
    let half =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: {}\r\n";
    let none = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n";
    for broken in [half, none] {
        let (gateway, whole) = (Gateway::start().await, Replica::start(Mood::Stream).await);
        gateway.replicas(&[raw(broken).await, whole.address]);
        for _ in 0..4 {
            let text = gateway.ask(&streamed()).send().await.unwrap().text().await.unwrap();
            assert_eq!(text, "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
        }
        let page = gateway.page();
        assert!(page.contains("vlm_gateway_attempts_failed_total{reason=\"broke_off\"} 1"), "{page}");
        assert!(page.contains("vlm_gateway_answers_broken_total 0"), "{page}");
    }
}

#[tokio::test]
async fn any_other_answer_that_breaks_off_is_not_taken_for_whole() {
    let gateway = Gateway::start().await;
    // Too long to be read whole before the client gets its first byte.
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n";
    gateway.replicas(&[endless(head, "half", 2 << 20).await]);
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err());
    gateway.await_counts(0, 0).await;
    assert!(gateway.page().contains("vlm_gateway_answers_broken_total 1"));
}

#[tokio::test]
async fn a_gateway_that_leaves_finishes_its_streams_and_sends_others_elsewhere() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Gated).await);
    gateway.replicas(&[replica.address]);
    let running = tokio::spawn(gateway.ask(&question()).send());
    gateway.await_counts(0, 1).await;
    let shutdown = CancellationToken::new();
    let life = gateway.app.life.clone();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move { life.end(shutdown, Duration::from_secs(60), Duration::from_secs(60)).await }
    });
    shutdown.cancel();
    crate::gateway::await_that(|| gateway.app.life.is_draining(), "draining").await;
    // Endpoints lag: what still comes is served, and asked to connect anew.
    replica.turn(Mood::Echo);
    let late = gateway.ask(&question()).send().await.unwrap();
    assert_eq!((late.status().as_u16(), &late.headers()["connection"]), (200, &"close".parse().unwrap()));
    gateway.app.life.closed().cancel();
    assert!(gateway.ask(&question()).send().await.is_err(), "nobody listens any longer");
    replica.state.gate.add_permits(1);
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_that_was_open_before_the_close_gets_503_and_tries_elsewhere() {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;
    let gateway = Gateway::start().await;
    gateway.app.life.closed().cancel();
    let request = Request::post("/v1/chat/completions").header("content-type", "application/json");
    let request = request.body(Body::from(question().to_string())).unwrap();
    let response = vlm_gateway::server::router(gateway.app.clone()).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"0".parse().unwrap()));
    assert_eq!(response.headers()["x-vlm-reason"], "gateway_draining");
}

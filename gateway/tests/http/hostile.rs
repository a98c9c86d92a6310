//! Raw bytes from hostile clients: smuggled requests, endless headers, bodies that never come.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::gateway::Gateway;
use crate::replica::{Mood, Replica};

/// Sends bytes and returns everything that comes back until the gateway closes or is silent for a second.
async fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // The gateway may close before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
const INNER: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: evil\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn no_second_request_is_smuggled_in_the_body_of_a_first() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let question = r#"{"model":"tiny"}"#;
    let chunked = format!("{:x}\r\n{question}\r\n0\r\n\r\n", question.len());
    for (name, bytes) in [
        ("two lengths", format!("{HEAD}content-length: 16\r\ncontent-length: 5\r\n\r\n{question}{INNER}")),
        ("a list of lengths", format!("{HEAD}content-length: 16, 5\r\n\r\n{question}{INNER}")),
        ("a signed length", format!("{HEAD}content-length: +16\r\n\r\n{question}{INNER}")),
        ("an unknown coding", format!("{HEAD}transfer-encoding: xchunked\r\n\r\n{chunked}{INNER}")),
        ("a coding after chunked", format!("{HEAD}transfer-encoding: chunked, gzip\r\n\r\n{chunked}{INNER}")),
        ("a space before the colon", format!("{HEAD}transfer-encoding : chunked\r\n\r\n{chunked}{INNER}")),
        (
            "a folded header",
            format!("{HEAD}x: a\r\n transfer-encoding: chunked\r\ncontent-length: 16\r\n\r\n{question}{INNER}"),
        ),
        ("an endless chunk size", format!("{HEAD}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{INNER}")),
    ] {
        let before = replica.count();
        let answers = exchange(&gateway, bytes.as_bytes()).await;
        let got = statuses(&answers);
        assert!(got.len() <= 1, "{name}: {answers}");
        assert!(got.iter().all(|status| *status == "400" || *status == "501"), "{name}: {answers}");
        assert_eq!(replica.count(), before, "{name} reached the replica");
    }
    // Of two kinds of length the chunks are the true one (RFC 9112, section 6.3), and nothing after them is read.
    for both in ["content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"] {
        let answers = exchange(&gateway, format!("{HEAD}{both}\r\n\r\n{chunked}{INNER}").as_bytes()).await;
        assert_eq!(statuses(&answers), ["200"], "{answers}");
        assert!(answers.contains("connection: close") && answers.ends_with(question), "{answers}");
    }
    // The same bytes as honest requests are two.
    let honest = format!("{HEAD}content-length: 16\r\n\r\n{question}{INNER}");
    assert_eq!(statuses(&exchange(&gateway, honest.as_bytes()).await), ["200", "415"]);
}

#[tokio::test]
async fn headers_are_bounded() {
    let gateway = Gateway::start().await;
    let long = format!("{HEAD}x: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(statuses(&exchange(&gateway, long.as_bytes()).await), ["431"]);
    let many = format!("{HEAD}{}\r\n", "a: b\r\n".repeat(1000));
    assert_eq!(statuses(&exchange(&gateway, many.as_bytes()).await), ["431"]);
}

#[tokio::test]
async fn a_body_that_never_comes_ends_in_time_and_gives_its_room_back() {
    let gateway = Gateway::start().await;
    let slow = format!("{HEAD}content-length: 500000\r\n\r\n{{");
    let answers = exchange(&gateway, slow.as_bytes()).await;
    assert_eq!(statuses(&answers), ["408"], "{answers}");
    assert_eq!(gateway.app.bodies.held(), 0);
    assert!(gateway.page().contains("vlm_gateway_requests_invalid_total{reason=\"body_timeout\"} 1"));
}

#[tokio::test]
async fn paths_lead_nowhere_but_to_the_routes() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let question = r#"{"model":"tiny"}"#;
    for path in [
        "/v1/chat/completions/",
        "/v1/chat/../chat/completions",
        "//v1/chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions%00",
        "http://169.254.169.254/latest",
        "/metrics",
    ] {
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{question}"
        );
        assert_eq!(statuses(&exchange(&gateway, bytes.as_bytes()).await), ["404"], "{path}");
    }
    assert_eq!(replica.count(), 0);
}

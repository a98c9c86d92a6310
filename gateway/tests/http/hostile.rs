//! Raw bytes from hostile clients: smuggled requests, endless headers, paths and methods that lead elsewhere.

use std::time::Duration;

use axum::{body::Body, http::Request};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::gateway::Gateway;
use crate::replica::{Mood, Replica};

/// Sends bytes and returns everything that comes back until the gateway closes or is silent for a second.
pub async fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // The gateway may close before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

pub fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

pub const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
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
        ("a negative length", format!("{HEAD}content-length: -1\r\n\r\n{question}{INNER}")),
        ("a length in hex", format!("{HEAD}content-length: 0x10\r\n\r\n{question}{INNER}")),
        ("chunked twice", format!("{HEAD}transfer-encoding: chunked, chunked\r\n\r\n{chunked}{INNER}")),
        (
            "identity after chunked",
            format!("{HEAD}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{chunked}{INNER}"),
        ),
        ("a coding with a control character", format!("{HEAD}transfer-encoding: \u{b}chunked\r\n\r\n{chunked}{INNER}")),
        (
            "a coding in HTTP/1.0",
            format!("{}transfer-encoding: chunked\r\n\r\n{chunked}{INNER}", HEAD.replace("1.1", "1.0")),
        ),
        ("a NUL in a header", format!("{HEAD}x: a\u{0}b\r\ncontent-length: 16\r\n\r\n{question}{INNER}")),
        (
            "a bare CR in a header",
            format!("{HEAD}x: a\rcontent-length: 5\r\ncontent-length: 16\r\n\r\n{question}{INNER}"),
        ),
        ("a header without a name", format!("{HEAD}: chunked\r\ncontent-length: 16\r\n\r\n{question}{INNER}")),
        (
            "a folded first header",
            HEAD.replace("host: x", " host: x\r\nhost: y") + "content-length: 16\r\n\r\n" + question + INNER,
        ),
        (
            "a signed chunk size",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n+10\r\n{question}\r\n0\r\n\r\n{INNER}"),
        ),
        (
            "a chunk size in hex with 0x",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n0x10\r\n{question}\r\n0\r\n\r\n{INNER}"),
        ),
        (
            "a chunk longer than its size",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n5\r\n{question}\r\n0\r\n\r\n{INNER}"),
        ),
        (
            "a chunk that ends with a bare LF",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n10\n{question}\n0\n\n{INNER}"),
        ),
        (
            "an endless extension of a chunk",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n10;{}\r\n{question}\r\n0\r\n\r\n", "a".repeat(64 << 10)),
        ),
        (
            "endless trailers",
            format!(
                "{HEAD}transfer-encoding: chunked\r\n\r\n{}{}\r\n",
                chunked.strip_suffix("\r\n").unwrap(),
                "a: b\r\n".repeat(20_000)
            ),
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
        "/v1/./chat/completions",
        "/%2e%2e/v1/chat/completions",
        "/v1/chat/completions;x",
        "/v1/chat/completions%20",
        "/V1/chat/completions",
        "\\v1\\chat\\completions",
        "/v1/chat\\completions",
        "*",
        "http://x//v1/chat/completions",
    ] {
        let bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{question}"
        );
        let answers = exchange(&gateway, bytes.as_bytes()).await;
        let expected = if path.starts_with('\\') { "400" } else { "404" };
        assert_eq!(statuses(&answers), [expected], "{path}");
    }
    assert_eq!(replica.count(), 0);
}

#[tokio::test]
async fn other_methods_do_nothing_and_connect_opens_no_tunnel() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let rest = "host: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{\"model\":\"tiny\"}";
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "POSTS", "PROPFIND"] {
        let answers = exchange(&gateway, format!("{method} /v1/chat/completions HTTP/1.1\r\n{rest}").as_bytes()).await;
        assert_eq!(statuses(&answers), ["405"], "{method}: {answers}");
        assert!(answers.contains("allow: POST"), "{method}: {answers}");
    }
    let to = replica.address;
    for target in [format!("CONNECT {to}"), "CONNECT /v1/chat/completions".to_owned(), "OPTIONS *".to_owned()] {
        let answers = exchange(&gateway, format!("{target} HTTP/1.1\r\n{rest}").as_bytes()).await;
        let got = statuses(&answers);
        assert!(got.len() == 1 && got[0].starts_with('4'), "{target}: {answers}");
    }
    assert_eq!(replica.count(), 0);
    // The absolute form of one of our own addresses is that address (RFC 9112, section 3.2.2), of whatever host.
    let absolute = format!("POST http://{to}/v1/chat/completions HTTP/1.1\r\n{rest}");
    assert_eq!(statuses(&exchange(&gateway, absolute.as_bytes()).await), ["200"]);
    assert_eq!(replica.state.seen.lock().unwrap()[0].0["host"].to_str().unwrap(), to.to_string());
}

#[tokio::test]
async fn a_question_mark_leads_nowhere_else() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let bytes = format!(
        "{}content-length: 16\r\n\r\n{{\"model\":\"tiny\"}}",
        HEAD.replace("completions", "completions?/../../metrics#x")
    );
    assert_eq!(statuses(&exchange(&gateway, bytes.as_bytes()).await), ["200"]);
    assert_eq!(replica.state.paths.lock().unwrap().as_slice(), ["/v1/chat/completions"]);
}

#[tokio::test]
async fn headers_of_http_2_are_bounded_as_well() {
    let gateway = Gateway::start().await;
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(gateway.url("/v1/chat/completions")).header("x", "a".repeat(100_000));
    match client.request(request.body(Body::empty()).unwrap()).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(!error.is_connect(), "{error:?}"),
    }
}

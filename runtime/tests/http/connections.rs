//! Clients that connect and do not behave.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Server, long, question};

/// Waits for the end of a connection and gives what came before.
async fn closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = reading.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn served(server: &Server) {
    assert_eq!(server.ask(&question(&json!({"max_tokens": 1}))).await.0, 200);
}

#[tokio::test]
async fn silent_connections_and_slow_headers_are_closed() {
    let server = Server::start(&["--idle-timeout-seconds", "1"]).await;
    for beginning in ["", "PRI * HT", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let begun = Instant::now();
        closed(stream).await;
        assert!(begun.elapsed() >= Duration::from_millis(900), "{beginning}");
    }
    // A byte now and then is no progress.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let begun = Instant::now();
    while stream.write_all(b"a").await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "slow headers are waited for");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    served(&server).await;
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_silence_may_is_not_cut() {
    let server = Server::start(&["--idle-timeout-seconds", "1", "--max-concurrency", "1"]).await;
    // What waits behind these has not a byte on its connection for longer than a second.
    let long = long(&json!({"stream": false}));
    let asking: Vec<_> = (0..12).map(|_| server.post().json(&long).send()).collect();
    let answers = futures::future::join_all(asking).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let server = Server::start(&["--body-timeout-seconds", "1"]).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\nconnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = closed(stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"body_timeout\""), "{answer}");
    served(&server).await;
}

#[tokio::test]
async fn a_half_closed_connection_frees_its_place() {
    let server = Server::start(&["--max-concurrency", "1", "--max-queue", "1"]).await;
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 1000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = closed(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    served(&server).await;
}

#[tokio::test]
async fn a_flood_of_headers_is_431() {
    let server = Server::start(&[]).await;
    let request = |headers: &str| {
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").into_bytes()
    };
    let headers = |count: usize| (0..count).map(|n| ["h", &n.to_string(), ": v\r\n"].concat()).collect::<String>();
    let many = headers(200);
    let large = format!("h: {}\r\n", "v".repeat(100_000));
    for flood in [many, large] {
        let answer = server.raw(&request(&flood)).await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("\"code\":\"headers_too_large\""), "{answer}");
    }
    // Beyond what the parser takes, there is no more than a status.
    for flood in [headers(5000), format!("h: {}\r\n", "v".repeat(10_000_000))] {
        let answer = server.raw(&request(&flood)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "x".repeat(10_000));
    assert!(server.raw(path.as_bytes()).await.starts_with("HTTP/1.1 431"));
    served(&server).await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::start(&["--max-connections", "4"]).await;
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() <= 4, "a fifth connection is taken");
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let mut first = [0; 1];
        // A connection that is taken is silent, and one that is not ends at once.
        if tokio::time::timeout(Duration::from_millis(500), stream.peek(&mut first)).await.is_ok() {
            break closed(stream).await;
        }
        held.push(stream);
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too_many_connections"), "{refused}");
    drop(held);
    server
        .until("a place is free", async || {
            server.client.get(format!("{}/health", server.base)).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    assert!(server.metric("vlm_connections_refused_total").await > 0);
}

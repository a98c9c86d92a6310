//! Clients that connect and do not behave.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use vlm_contract::openai::error::ErrorBody;

use super::server::{PATIENCE, Server, long, question};

/// Most that clients who misbehave, all at once, may add to the memory in use.
const MOST_MEMORY: u64 = 64 << 20;

/// A question as it goes over the wire.
fn wire(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Waits for the end of a connection and gives what came before.
async fn closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = reading.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Checks that an answer to raw bytes has this status and code, in `OpenAI`'s form.
fn refused<'a>(answer: &str, status: u16, code: impl Into<Option<&'a str>>) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let head = head.to_ascii_lowercase();
    for line in ["content-type: application/json", "connection: close", &format!("content-length: {}", body.len())] {
        assert!(head.lines().any(|found| found == line), "{line} is not in {head}");
    }
    assert!(head.contains("\r\nx-request-id: "), "{head}");
    let error = serde_json::from_str::<ErrorBody>(body).unwrap().error;
    assert_eq!((error.code.as_deref(), error.kind.as_str()), (code.into(), "invalid_request_error"));
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
    // Nor does it help to send a byte now and then.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let mut first = [0; 1];
    while tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut first)).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "a body that drips is waited for");
        stream.write_all(b" ").await.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    refused(&closed(stream).await, 408, "body_timeout");
    served(&server).await;
}

#[tokio::test]
async fn two_hundred_slow_bodies_are_408_and_bounded_in_memory() {
    let words = ["--body-timeout-seconds", "3", "--max-concurrency", "8", "--max-queue", "300"];
    let server = Server::start(&words).await;
    served(&server).await;
    let before = server.peak_memory();
    // Each promises more than it sends, and all together more than may be used.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 1000000\r\nconnection: close\r\n\r\n";
    let beginning = [head, &" ".repeat(50_000)].concat().into_bytes();
    let asking = (0..200).map(|_| async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&beginning).await.unwrap();
        closed(stream).await
    });
    for answer in join_all(asking).await {
        refused(&answer, 408, "body_timeout");
    }
    let grown = server.peak_memory().saturating_sub(before);
    println!("200 slow bodies took {} MiB", grown >> 20);
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
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
        refused(&closed(stream).await, 400, None::<&str>);
    }
    served(&server).await;
}

/// The end of a connection is how a client that leaves is known, before it would be by a write that fails. One that
/// only ends its own side looks the same.
#[tokio::test]
async fn who_ends_its_side_after_the_question_has_left() {
    let server = Server::start(&["--max-concurrency", "1", "--max-queue", "0"]).await;
    for stream in [false, true] {
        let mut asks = TcpStream::connect(server.address()).await.unwrap();
        asks.write_all(&wire(&long(&json!({"stream": stream})))).await.unwrap();
        asks.shutdown().await.unwrap();
        let answer = closed(asks).await;
        assert!(answer.is_empty() || stream && !answer.contains("[DONE]"), "{answer}");
        let next = question(&json!({"max_tokens": 1}));
        server.until("the only place is free", async || server.ask(&next).await.0 == 200).await;
    }
    let tokens = server.metric("vlm_generation_tokens_total").await;
    assert!(tokens < 1800, "{tokens} tokens were computed for nobody");
}

#[tokio::test]
async fn a_client_that_never_reads_its_streams_frees_its_place_and_others_are_answered() {
    let words = ["--idle-timeout-seconds", "2", "--keep-alive-seconds", "1"];
    let server = Server::start(&[&words[..], &["--max-concurrency", "1", "--max-queue", "1"]].concat()).await;
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.set_recv_buffer_size(4096).unwrap();
    let mut deaf = deaf.connect(server.address().parse().unwrap()).await.unwrap();
    // More than any buffer on the way holds: a megabyte each.
    let body = long(&json!({"logprobs": true, "top_logprobs": 20}));
    deaf.write_all(&wire(&body).repeat(12)).await.unwrap();
    let begun = Instant::now();
    while server.metric("vlm_requests_finished_total{reason=\"cancelled\"}").await == 0 {
        assert!(begun.elapsed() < 2 * PATIENCE, "who does not read is waited for");
        served(&server).await;
    }
    // It had one of two places, and there are two again.
    let asking = (0..2).map(|_| server.post().json(&long(&json!({"max_tokens": 300}))).send());
    for answer in join_all(asking).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    drop(deaf);
}

#[tokio::test]
async fn a_flood_of_headers_is_431() {
    let server = Server::start(&[]).await;
    served(&server).await;
    let before = server.peak_memory();
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
    // Beyond what the parser takes as well.
    for flood in [headers(5000), format!("h: {}\r\n", "v".repeat(10_000_000))] {
        refused(&server.raw(&request(&flood)).await, 431, "headers_too_large");
    }
    let url = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    refused(&server.raw(url.as_bytes()).await, 431, "headers_too_large");
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "x".repeat(10_000));
    assert!(server.raw(path.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // Many at once.
    let flood = request(&format!("h: {}\r\n", "v".repeat(2_000_000)));
    for answer in join_all((0..64).map(|_| server.raw(&flood))).await {
        refused(&answer, 431, "headers_too_large");
    }
    let grown = server.peak_memory().saturating_sub(before);
    println!("the floods took {} MiB", grown >> 20);
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
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

#[tokio::test]
async fn what_is_no_request_is_400_in_shape() {
    let server = Server::start(&[]).await;
    for bytes in [
        // The beginning of TLS.
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nh: \x01\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: nothing\r\n\r\n",
    ] {
        let answer = server.raw(bytes).await;
        println!("{}", String::from_utf8_lossy(bytes));
        refused(&answer, 400, "malformed_request");
    }
    // Behind a request that is one, on the same connection.
    let answer = server.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    refused(&answer[answer.find("HTTP/1.1 400").unwrap()..], 400, "malformed_request");
    served(&server).await;
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_reads_that_it_is_too_much() {
    let server = Server::start(&["--max-body-bytes", "20000"]).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: {}\r\n\r\n", 100 << 20).into_bytes();
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let piece = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for (head, piece) in [(announced, vec![b' '; 1 << 20]), (chunked, piece)] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&head).await.unwrap();
        for sent in 0..100 {
            stream.write_all(&piece).await.unwrap_or_else(|error| panic!("after {sent} MiB: {error}"));
        }
        let begun = Instant::now();
        refused(&closed(stream).await, 413, "body_too_large");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    // One that asks first whether it may send is not told to.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let asks = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", 100 << 20);
    stream.write_all(asks.as_bytes()).await.unwrap();
    refused(&closed(stream).await, 413, "body_too_large");
    served(&server).await;
}

//! Clients that take their time: each is bounded, whatever it is slow with.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vlm_gateway::{routes::Standing, server::listen::Bounds};

use crate::gateway::{Gateway, question, route, streamed};
use crate::replica::{Mood, Replica};

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
/// The whole preface of HTTP/2, and settings without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00frugal!!";

async fn impatient(connections: usize) -> Gateway {
    Gateway::within(route(Standing::Awake), Bounds { connections, silence: Duration::from_millis(500) }).await
}

/// Sends a piece every 100 ms until the gateway closes the connection; returns how long that took.
async fn dribble(gateway: &Gateway, first: &[u8], piece: &[u8]) -> Duration {
    let begun = Instant::now();
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let _ = to.write_all(first).await;
    let sending = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if to.write_all(piece).await.is_err() {
                return;
            }
        }
    };
    let closing = async {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all).await;
    };
    tokio::select! {
        () = sending => {}
        () = closing => {}
        () = tokio::time::sleep(Duration::from_secs(8)) => panic!("{} is kept", String::from_utf8_lossy(first)),
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed_whatever_it_sends() {
    let gateway = impatient(100).await;
    for (name, first, piece) in [
        ("nothing at all", &b""[..], &b""[..]),
        ("half the preface of HTTP/2", b"PRI * HT", b""),
        ("a head, byte by byte", b"POST /v1/chat/completions HTTP/1.1\r\n", b"a"),
        ("a head, header by header", b"POST /v1/chat/completions HTTP/1.1\r\n", b"a: b\r\n"),
        ("empty lines", b"\r\n", b"\r\n"),
        ("HTTP/2 without requests", PREFACE, b""),
        ("HTTP/2 with pings alone", PREFACE, PING),
    ] {
        let took = dribble(&gateway, first, piece).await;
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");
    }
}

#[tokio::test]
async fn slow_clients_keep_nobody_else_out_for_longer() {
    let gateway = impatient(8).await;
    let replica = Replica::start(Mood::Echo).await;
    gateway.replicas(&[replica.address]);
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(gateway.ask(&question()).send().await.unwrap().status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_body_that_is_announced_and_not_sent_keeps_no_other_out() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let mut slow = Vec::new();
    // Five times what all bodies may have together.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(format!("{HEAD}content-length: 1000000\r\n\r\n{{").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    crate::gateway::await_that(|| gateway.app.bodies.held() >= 20 * 1024, "all have begun").await;
    assert_eq!(gateway.ask(&question()).send().await.unwrap().status(), 200);
    assert_eq!(gateway.app.bodies.held(), 20 * 1024);
    crate::gateway::await_that(|| gateway.app.bodies.held() == 0, "the slow ones are given up").await;
    assert!(gateway.page().contains("vlm_gateway_requests_invalid_total{reason=\"body_timeout\"} 20"));
}

#[tokio::test]
async fn a_body_that_never_comes_ends_in_time_and_gives_its_room_back() {
    let gateway = Gateway::start().await;
    let slow = format!("{HEAD}content-length: 500000\r\n\r\n{{");
    let answers = crate::hostile::exchange(&gateway, slow.as_bytes()).await;
    assert_eq!(crate::hostile::statuses(&answers), ["408"], "{answers}");
    assert_eq!(gateway.app.bodies.held(), 0);
    assert!(gateway.page().contains("vlm_gateway_requests_invalid_total{reason=\"body_timeout\"} 1"));
}

#[tokio::test]
async fn a_body_byte_by_byte_ends_in_time() {
    let gateway = Gateway::start().await;
    for head in ["content-length: 500000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        let took = dribble(&gateway, format!("{HEAD}{head}").as_bytes(), b"1\r\n{\r\n").await;
        assert!(took < Duration::from_secs(4), "{head}: {took:?}");
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_silent() {
    let gateway = impatient(100).await;
    let replica = Replica::start(Mood::Gated).await;
    gateway.replicas(&[replica.address]);
    let whole = tokio::spawn(gateway.ask(&question()).send());
    gateway.await_counts(0, 1).await;
    replica.turn(Mood::StreamForever);
    let mut stream = gateway.ask(&streamed()).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    tokio::time::sleep(Duration::from_secs(2)).await;
    gateway.await_counts(0, 2).await;
    replica.turn(Mood::Gated);
    replica.state.gate.add_permits(1);
    assert_eq!(whole.await.unwrap().unwrap().status(), 200);
    gateway.await_counts(0, 1).await;
}

#[tokio::test]
async fn a_connection_whose_answer_took_long_takes_the_next_request() {
    let (gateway, replica) = (impatient(10).await, Replica::start(Mood::Gated).await);
    gateway.replicas(&[replica.address]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let body = question().to_string();
    let request = format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len());
    for round in 0..2 {
        stream.write_all(request.as_bytes()).await.unwrap();
        // Longer than a connection may ask nothing.
        tokio::time::sleep(Duration::from_millis(1700)).await;
        replica.state.gate.add_permits(1);
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.starts_with("http/1.1 200") && !answer.contains("connection: close"), "{round}: {answer}");
    }
    // And then it is closed like any other.
    let begun = Instant::now();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

//! What a replica may say that is no answer of a model server, and what the client gets then.

use crate::gateway::{Gateway, code, question, streamed};
use crate::replica::{Mood, Replica, endless, raw};

/// Asks a model whose only replica is this one, and returns status, code and message.
async fn told(gateway: &Gateway) -> (u16, String, String) {
    let response = gateway.ask(&question()).send().await.unwrap();
    let (status, retry) = (response.status().as_u16(), response.headers().get("retry-after").cloned());
    let reason = response.headers()["x-vlm-reason"].to_str().unwrap().to_owned();
    let body: serde_json::Value = response.json().await.unwrap();
    let of = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    assert_eq!(reason, of("code"));
    assert_eq!(retry.unwrap(), "1");
    assert_eq!(of("type"), "server_error");
    (status, of("code"), of("message"))
}

#[tokio::test]
async fn each_kind_of_rubbish_is_502_that_says_so_and_counted_by_its_name() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
    let not_found = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nnone";
    let failing = "HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
    let truncated = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"id\":";
    let two_lengths = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\n{}{}{}{}{}";
    let chunks = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n";
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nrubbish";
    for (name, bytes, reason, words) in [
        ("nothing", "", "broke_off", "dies, or spoke no HTTP"),
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "broke_off", "spoke no HTTP"),
        ("a truncated answer", truncated, "broke_off", "broke off"),
        ("two lengths", two_lengths, "broke_off", "spoke no HTTP"),
        ("broken chunks", chunks, "broke_off", "broke off"),
        ("no type", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "rubbish", "no model server"),
        ("a page", html, "rubbish", "no model server"),
        ("another server", not_found, "rubbish", "no model server"),
        ("another server that fails", failing, "failed", "could not answer"),
        ("another protocol", upgrade, "failed", "could not answer"),
    ] {
        let gateway = Gateway::start().await;
        gateway.replicas(&[raw(bytes).await]);
        let (status, code, message) = told(&gateway).await;
        assert_eq!((status, code.as_str()), (502, "replicas_failed"), "{name}: {message}");
        assert!(
            message.contains("3 attempts") && message.contains(words) && message.ends_with("retry"),
            "{name}: {message}"
        );
        let page = gateway.page();
        assert!(
            page.contains(&format!("vlm_gateway_attempts_failed_total{{reason=\"{reason}\"}} 3")),
            "{name}: {page}"
        );
        assert!(page.contains("reason=\"replicas_failed\"} 1"), "{name}");
        gateway.await_counts(0, 0).await;
    }
}

#[tokio::test]
async fn an_endless_head_is_given_up() {
    for (head, piece) in [("HTTP/1.1 200 OK\r\nx: ", "aaaaaaaa"), ("HTTP/1.1 200 OK\r\n", "a: b\r\n"), ("", "HTTP ")] {
        let gateway = Gateway::start().await;
        gateway.replicas(&[endless(head, piece, 64 << 20).await]);
        let (status, code, message) = told(&gateway).await;
        assert_eq!((status, code.as_str()), (502, "replicas_failed"), "{message}");
        assert!(gateway.page().contains("vlm_gateway_attempts_failed_total{reason=\"broke_off\"} 3"));
    }
}

#[tokio::test]
async fn rubbish_costs_no_request_that_another_replica_can_answer() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
    let (gateway, good) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[raw(html).await, good.address]);
    for _ in 0..4 {
        assert_eq!(gateway.ask(&question()).send().await.unwrap().status(), 200);
    }
    assert_eq!(good.count(), 4);
}

#[tokio::test]
async fn a_streaming_client_that_waits_is_told_by_an_event() {
    let gateway = Gateway::start().await;
    let mut stream = gateway.ask(&streamed()).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().unwrap().starts_with(b": "));
    gateway.replicas(&[raw("").await]);
    let events = stream.text().await.unwrap();
    let last = events.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("replicas_failed"), "{events}");
}

#[tokio::test]
async fn an_endless_event_is_passed_on_and_not_kept() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: ";
    let gateway = Gateway::start().await;
    gateway.replicas(&[endless(head, "xxxxxxxx", 8 << 20).await]);
    let text = gateway.ask(&streamed()).send().await.unwrap().text().await.unwrap();
    assert_eq!(text.len(), (8 << 20) + 6);
}

#[tokio::test]
async fn the_clients_own_errors_go_through_in_the_replicas_words() {
    let words = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n\
                 {\"error\": {\"code\": \"own_code_xyz\"}}";
    let gateway = Gateway::start().await;
    gateway.replicas(&[raw(words).await]);
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (400, "own_code_xyz"));
    assert!(!gateway.page().contains("vlm_gateway_attempts_failed_total{"));
}

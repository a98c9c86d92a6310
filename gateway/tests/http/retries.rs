//! Before the first byte, a failed attempt is made again elsewhere.

use crate::gateway::{Gateway, code, question};
use crate::replica::{Mood, Replica, nobody, raw};

async fn answered_in_spite_of(bad: std::net::SocketAddr, reason: &str) {
    let (gateway, good) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[bad, good.address]);
    for _ in 0..4 {
        let response = gateway.ask(&question()).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(good.count(), 4);
    let page = gateway.page();
    assert!(page.contains(&format!("vlm_gateway_attempts_failed_total{{reason=\"{reason}\"}}")), "{page}");
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn a_replica_that_nobody_listens_at_costs_no_request() {
    answered_in_spite_of(nobody().await, "unreachable").await;
}

#[tokio::test]
async fn nor_does_one_that_breaks_off_before_its_answer() {
    answered_in_spite_of(raw("").await, "broke_off").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n";
    answered_in_spite_of(raw(head).await, "broke_off").await;
}

#[tokio::test]
async fn nor_one_that_breaks_off_within_an_answer_that_nobody_has_seen_of() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"id\": ";
    answered_in_spite_of(raw(half).await, "broke_off").await;
}

#[tokio::test]
async fn nor_one_that_answers_rubbish() {
    answered_in_spite_of(raw("\u{0}\u{1}rubbish\r\n\r\n").await, "broke_off").await;
}

#[tokio::test]
async fn nor_one_that_leaves_or_fails_or_redirects() {
    for (mood, reason) in [(Mood::Leaving, "leaving"), (Mood::Failing, "failed"), (Mood::Redirecting, "failed")] {
        let bad = Replica::start(mood).await;
        answered_in_spite_of(bad.address, reason).await;
    }
}

#[tokio::test]
async fn a_full_replica_is_waited_for() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Full).await);
    gateway.replicas(&[replica.address]);
    let asking = tokio::spawn(gateway.ask(&question()).send());
    crate::gateway::await_that(|| replica.count() >= 2, "it was asked again").await;
    replica.turn(Mood::Echo);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_fails_everywhere_gets_the_replicas_own_words() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Failing).await);
    gateway.replicas(&[replica.address]);
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (500, "engine_error"));
    assert_eq!(replica.count(), 3);
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn one_that_breaks_every_replica_is_given_up_with_502() {
    let gateway = Gateway::start().await;
    gateway.replicas(&[raw("").await, raw("").await, raw("").await]);
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!((response.status().as_u16(), code(response).await.as_str()), (502, "replicas_failed"));
    assert!(gateway.page().contains("reason=\"replicas_failed\"} 1"));
}

#[tokio::test]
async fn when_the_only_replica_dies_the_request_waits_for_the_next() {
    let gateway = Gateway::start().await;
    gateway.replicas(&[nobody().await]);
    let asking = tokio::spawn(gateway.ask(&question()).send());
    gateway.await_counts(1, 0).await;
    let replica = Replica::start(Mood::Echo).await;
    gateway.replicas(&[replica.address]);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

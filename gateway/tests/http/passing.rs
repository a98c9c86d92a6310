//! What of a request a replica sees, byte by byte: its own request, and nothing that a client puts between.

use serde_json::Value;
use vlm_gateway::routes::Standing;

use crate::gateway::{Gateway, await_that, code, question, route};
use crate::hostile::{HEAD, exchange, statuses};
use crate::replica::{Mood, Replica};

const QUESTION: &str = r#"{"model":"tiny"}"#;

/// Names of the headers that the replica got last, sorted.
fn seen(replica: &Replica) -> Vec<String> {
    let all = replica.state.seen.lock().unwrap();
    let mut names: Vec<_> = all.last().unwrap().0.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn names_in_connection_and_headers_of_proxies_and_of_ours_stay_here() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let tricks = "connection: close, content-type, x-request-id, x-vlm-via, content-length\r\n\
                  proxy-connection: keep-alive\r\nkeep-alive: 5\r\nte: trailers\r\nproxy-authorization: x\r\n\
                  authorization: Bearer secret\r\ncookie: a=b\r\nforwarded: for=10.0.0.1\r\nx-forwarded-for: 10.0.0.1\r\n\
                  x-forwarded-host: evil\r\nx-forwarded-proto: https\r\nx-real-ip: 10.0.0.1\r\nx-original-url: /metrics\r\n\
                  x-rewrite-url: /metrics\r\nx-http-method-override: GET\r\nx-vlm-via: direct\r\nx-vlm-client: other\r\n\
                  x-vlm-stream-state: true\r\nx-vlm-reason: x\r\nx_vlm_via: direct\r\nexpect: nothing\r\nrange: bytes=0-1\r\n\
                  accept-encoding: gzip\r\ncontent-encoding: identity\r\n";
    let bytes = format!("{HEAD}{tricks}content-length: 16\r\n\r\n{QUESTION}");
    let answers = exchange(&gateway, bytes.as_bytes()).await;
    assert_eq!(statuses(&answers), ["200"], "{answers}");
    let expected = ["content-length", "content-type", "host", "x-request-id", "x-vlm-via"];
    let names: Vec<_> = seen(&replica).into_iter().filter(|name| name != "x-vlm-client").collect();
    assert_eq!(names, expected);
    let (headers, body) = replica.state.seen.lock().unwrap()[0].clone();
    assert_eq!(
        (&headers["x-vlm-via"], &headers["content-length"]),
        (&"gateway".parse().unwrap(), &"16".parse().unwrap())
    );
    assert_eq!(headers["host"].to_str().unwrap(), replica.address.to_string(), "not the client's");
    assert!(headers.get("x-vlm-client").is_none_or(|client| client != "other"));
    assert_eq!(body, QUESTION);
}

#[tokio::test]
async fn nothing_is_upgraded() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    for upgrade in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let bytes = format!("{HEAD}{upgrade}content-length: 16\r\n\r\n{QUESTION}");
        let answers = exchange(&gateway, bytes.as_bytes()).await;
        assert_eq!(statuses(&answers), ["200"], "{answers}");
        assert!(!seen(&replica).iter().any(|name| name == "upgrade" || name == "http2-settings"));
    }
}

#[tokio::test]
async fn trailers_go_nowhere() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let bytes = format!(
        "{HEAD}trailer: x-vlm-via\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{QUESTION}\r\n0\r\nx-vlm-via: direct\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(statuses(&exchange(&gateway, bytes.as_bytes()).await), ["200"]);
    let (headers, body) = replica.state.seen.lock().unwrap()[0].clone();
    assert_eq!((headers.get_all("x-vlm-via").iter().count(), body.len()), (1, 16));
    assert!(!headers.contains_key("trailer") && !headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn a_trace_is_passed_on_and_an_id_is_taken_over_or_made() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = format!("traceparent: {parent}\r\ntracestate: a=1,b=2\r\ntracestate: c=3\r\nbaggage: user=x\r\n");
    let bytes = format!("{HEAD}{trace}x-request-id: mine-1\r\ncontent-length: 16\r\n\r\n{QUESTION}");
    let answers = exchange(&gateway, bytes.as_bytes()).await;
    assert!(answers.contains("x-request-id: mine-1\r\n"), "{answers}");
    let (headers, _) = replica.state.seen.lock().unwrap()[0].clone();
    assert_eq!(headers["traceparent"], parent);
    assert_eq!(headers.get_all("tracestate").iter().collect::<Vec<_>>(), ["a=1,b=2", "c=3"]);
    assert_eq!(headers["x-request-id"], "mine-1");
    assert!(!headers.contains_key("baggage"));
    for bad in ["a b", "\u{e9}", "{\"a\":1}"] {
        let bytes = format!("{HEAD}x-request-id: {bad}\r\ncontent-length: 16\r\n\r\n{QUESTION}");
        let answers = exchange(&gateway, bytes.as_bytes()).await;
        let (headers, _) = replica.state.seen.lock().unwrap().last().unwrap().clone();
        let made = headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{made}");
        assert!(answers.contains(&format!("x-request-id: {made}\r\n")), "{answers}");
    }
    // An error has one as well.
    let answers =
        exchange(&gateway, format!("{HEAD}x-request-id: mine-2\r\ncontent-length: 1\r\n\r\n{{").as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 400") && answers.contains("x-request-id: mine-2\r\n"), "{answers}");
}

#[tokio::test]
async fn a_model_is_seen_in_the_metrics_by_name_while_it_waits_wakes_and_answers() {
    let gateway = Gateway::with(route(Standing::Asleep)).await;
    let of = "{model=\"tiny\",namespace=\"shop\"}";
    let shows = |name: &str, value: &str| gateway.page().contains(&format!("{name}{of} {value}\n"));
    let asking = tokio::spawn(gateway.ask(&question()).send());
    await_that(|| shows("vlm_gateway_requests_held", "1"), "held").await;
    assert!(shows("vlm_gateway_requests_arrived_total", "1") && shows("vlm_gateway_requests_in_flight", "0"));
    let replica = Replica::start(Mood::Gated).await;
    gateway.replicas(&[replica.address]);
    await_that(|| shows("vlm_gateway_requests_in_flight", "1"), "in flight").await;
    assert!(shows("vlm_gateway_requests_held", "0"));
    await_that(|| shows("vlm_gateway_wake_seconds_count", "1"), "woken").await;
    await_that(|| shows("vlm_gateway_hold_seconds_count", "1"), "no longer held").await;
    replica.state.gate.add_permits(1);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    gateway.await_counts(0, 0).await;
    let finished = "vlm_gateway_requests_finished_total{code=\"2xx\",model=\"tiny\",namespace=\"shop\"} 1";
    await_that(|| gateway.page().contains(finished), "finished").await;
}

#[tokio::test]
async fn a_full_model_is_an_honest_429() {
    let gateway = Gateway::start().await;
    let replica = Replica::start(Mood::Gated).await;
    gateway.replicas(&[replica.address]);
    let all: Vec<_> = (0..6).map(|_| tokio::spawn(gateway.ask(&question()).send())).collect();
    gateway.await_counts(4, 2).await;
    let response = gateway.ask(&question()).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-vlm-reason"]),
        (429, &"queue_full".parse().unwrap())
    );
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let body: Value = response.json().await.unwrap();
    let expected = format!("every replica is busy, and 4 requests wait already; retry in {seconds} s");
    assert_eq!((&body["error"]["message"], &body["error"]["type"]), (&expected.into(), &"rate_limit_error".into()));
    replica.state.gate.add_permits(6);
    for asked in all {
        assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    }
    let response = gateway.client.post(gateway.url("/v1/chat/completions")).body("{").send().await.unwrap();
    assert_eq!(code(response).await, "unsupported_content_type");
}

//! What goes through, and what does not.

use std::time::Duration;

use axum::{body::Body, http::Request};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use vlm_gateway::{
    bodies::Bodies,
    routes::{Route, Standing},
};

use crate::gateway::{Gateway, await_that, code, question, route, streamed};
use crate::replica::{Mood, Replica};

#[tokio::test]
async fn the_body_goes_through_as_it_is_and_headers_only_as_far_as_they_are_read() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let sent = r#"{ "messages" : [], "model":"shop/tiny","unknown": 1.50 }"#;
    let request = gateway.client.post(gateway.url("/v1/responses")).body(sent);
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer secret"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-request-id", "mine"),
        ("x-vlm-via", "direct"),
    ];
    let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-request-id"], "mine");
    assert!(!response.headers().contains_key("x-inner"), "a header of the replica's connection");
    assert_eq!(response.headers()["content-length"], sent.len().to_string().as_str());
    assert_eq!(response.text().await.unwrap(), sent);
    let (got, body) = replica.state.seen.lock().unwrap()[0].clone();
    assert_eq!(body, sent);
    assert_eq!((got["x-vlm-via"].to_str().unwrap(), got["x-request-id"].to_str().unwrap()), ("gateway", "mine"));
    assert!(got.contains_key("traceparent") && !got.contains_key("authorization"));
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn a_stream_comes_event_by_event_and_a_client_that_leaves_ends_it() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Stream).await);
    gateway.replicas(&[replica.address]);
    let text = gateway.ask(&streamed()).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
    replica.turn(Mood::StreamForever);
    let mut response = gateway.ask(&streamed()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 0\n\n");
    gateway.await_counts(0, 1).await;
    drop(response);
    gateway.await_counts(0, 0).await;
}

#[tokio::test]
async fn models_are_listed_whether_they_have_replicas_or_not() {
    let gateway = Gateway::start().await;
    let list: Value = gateway.client.get(gateway.url("/v1/models")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["max_model_len"]), (&"tiny".into(), &512.into()));
    for name in ["tiny", "shop/tiny"] {
        let one = gateway.client.get(gateway.url(&format!("/v1/models/{name}"))).send().await.unwrap();
        assert_eq!(one.json::<Value>().await.unwrap()["id"], name);
    }
    let none = gateway.client.get(gateway.url("/v1/models/other")).send().await.unwrap();
    assert_eq!((none.status().as_u16(), code(none).await.as_str()), (404, "model_not_found"));
}

#[tokio::test]
async fn what_is_wrong_is_told_in_the_form_of_openai_and_counted() {
    let gateway = Gateway::start().await;
    let post = |kind: &'static str, body: String| {
        gateway.client.post(gateway.url("/v1/chat/completions")).header("content-type", kind).body(body).send()
    };
    let json = "application/json";
    for (kind, body, status, expected) in [
        (json, "{".to_owned(), 400, "malformed_body"),
        (json, r#"{"model": "other"}"#.to_owned(), 404, "model_not_found"),
        ("text/plain", "x".to_owned(), 415, "unsupported_content_type"),
        ("multipart/form-data", "x".to_owned(), 400, "malformed_body"),
        (json, " ".repeat((1 << 20) + 1), 413, "body_too_large"),
    ] {
        let response = post(kind, body).await.unwrap();
        assert_eq!(response.headers()["x-vlm-reason"], expected);
        assert_eq!((response.status().as_u16(), code(response).await.as_str()), (status, expected));
    }
    for (method, path, status, expected) in [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/../../metrics", 404, "unknown_url"),
        ("GET", "/metrics", 404, "unknown_url"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let response = gateway.client.request(method, gateway.url(path)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), code(response).await.as_str()), (status, expected), "{path}");
    }
    let page = gateway.page();
    assert!(page.contains("vlm_gateway_requests_invalid_total{reason=\"malformed_body\"} 2"), "{page}");
    for (reason, count) in
        [("method_not_allowed", 1), ("unknown_url", 3), ("body_too_large", 1), ("model_not_found", 1)]
    {
        let line = format!("vlm_gateway_requests_invalid_total{{reason=\"{reason}\"}} {count}");
        assert!(page.contains(&line), "{line}: {page}");
    }
    assert!(page.contains("vlm_gateway_requests_arrived_total{model=\"tiny\",namespace=\"shop\"} 0"), "{page}");
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_as_well() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let body = question().to_string();
    let request = Request::post(gateway.url("/v1/chat/completions")).header("content-type", "application/json");
    let response = client.request(request.body(Body::from(body.clone())).unwrap()).await.unwrap();
    assert_eq!(response.version(), axum::http::Version::HTTP_2);
    let got = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
    assert_eq!(got, body);
}

#[tokio::test]
async fn completions_and_whole_forms_reach_the_replica_byte_by_byte_on_their_own_paths() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    // Every byte there is, line ends and half a boundary among them.
    let picture: Vec<u8> = (0..=255).cycle().take(100_000).chain(*b"\r\n--bound\r\n\n\r").collect();
    let mut form = b"preamble\r\n--boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nshop/tiny\r\n\
        --boundary\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nwhat is it?\r\n\
        --boundary\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a \xc3\xa9.png\"\r\n\
        Content-Type: image/png\r\n\r\n"
        .to_vec();
    form.extend(picture);
    form.extend(b"\r\n--boundary--\r\nepilogue");
    let json = br#"{ "prompt":["a", "b"],  "model":"tiny", "n": 1.0, "unknown" : null }"#.to_vec();
    let all = [
        ("/v1/completions", "application/json; charset=utf-8", json),
        ("/v1/chat/completions", "multipart/form-data; boundary=\"boundary\"", form),
    ];
    for (path, kind, sent) in &all {
        let request = gateway.client.post(gateway.url(path)).header("content-type", *kind).body(sent.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(response.bytes().await.unwrap() == *sent, "{path}: the answer");
        let (headers, body) = replica.state.seen.lock().unwrap().last().unwrap().clone();
        assert!(body == *sent, "{path}: {} bytes of {}", body.len(), sent.len());
        assert_eq!(
            (&headers["content-type"], &headers["content-length"]),
            (&kind.parse().unwrap(), &sent.len().into())
        );
    }
    assert_eq!(*replica.state.paths.lock().unwrap(), all.map(|(path, ..)| path));
}

#[tokio::test]
async fn while_bodies_take_all_the_room_the_next_is_refused_and_told_when_to_come_again() {
    let gateway = Gateway::that(|app| app.bodies = Bodies::new(4 << 20, 1 << 20, Duration::from_secs(60))).await;
    gateway.stands(Route { window: 8, ..route(Standing::Awake) });
    let replica = Replica::start(Mood::Gated).await;
    gateway.replicas(&[replica.address]);
    let mut large = question().to_string();
    large += &" ".repeat((1 << 20) - large.len());
    let ask = |body: String| {
        let request = gateway.client.post(gateway.url("/v1/chat/completions"));
        request.header("content-type", "application/json").body(body).send()
    };
    let all: Vec<_> = (0..4).map(|_| tokio::spawn(ask(large.clone()))).collect();
    gateway.await_counts(0, 4).await;
    assert_eq!(gateway.app.bodies.held(), 4 << 20);
    let response = ask(question().to_string()).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(response.headers()["x-vlm-reason"], "bodies_full");
    let body: Value = response.json().await.unwrap();
    let error = &body["error"];
    assert_eq!((&error["type"], &error["code"]), (&"service_unavailable_error".into(), &"bodies_full".into()));
    assert!(error["message"].as_str().unwrap().ends_with("retry in 1 s"), "{error}");
    assert!(gateway.page().contains("vlm_gateway_requests_invalid_total{reason=\"bodies_full\"} 1"));
    replica.state.gate.add_permits(5);
    for asked in all {
        assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    }
    await_that(|| gateway.app.bodies.held() == 0, "there is room again").await;
    assert_eq!(ask(question().to_string()).await.unwrap().status(), 200);
}

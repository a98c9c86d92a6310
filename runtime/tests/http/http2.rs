//! HTTP/2 without TLS, as gateways and some clients speak it.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use vlm_contract::openai::error::ErrorBody;

use super::server::{Server, events, question};

/// Most that a head which is far too large may add to the memory in use.
const MOST_MEMORY: u64 = 64 << 20;

struct Client2 {
    http: Client<HttpConnector, Body>,
    base: String,
}

impl Client2 {
    fn new(server: &Server) -> Self {
        let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { http, base: server.base.clone() }
    }

    async fn post(&self, body: &Value) -> Response {
        let request = Request::post(format!("{}/v1/chat/completions", self.base));
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
        self.http.request(request).await.unwrap().map(Body::new)
    }

    /// Asks for the models with so many more headers of so many bytes, at a path of so many.
    async fn models(&self, headers: usize, bytes: usize, path: usize) -> Result<(StatusCode, String), String> {
        let query = if path > 0 { format!("?{}", "x".repeat(path)) } else { String::new() };
        let mut request = Request::get(format!("{}/v1/models{query}", self.base));
        for n in 0..headers {
            request = request.header(format!("h-{n:05}"), "v".repeat(bytes));
        }
        let answer =
            self.http.request(request.body(Body::empty()).unwrap()).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    }
}

#[tokio::test]
async fn answers_and_streams_come_over_http_2_too() {
    let server = Server::start(&[]).await;
    let client = Client2::new(&server);
    let whole = client.post(&question(&json!({}))).await;
    assert_eq!((whole.status(), whole.version()), (StatusCode::OK, axum::http::Version::HTTP_2));
    let whole: Value = serde_json::from_slice(&to_bytes(whole.into_body(), 1 << 20).await.unwrap()).unwrap();
    let stream = client.post(&question(&json!({"stream": true}))).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let events = events(std::str::from_utf8(&to_bytes(stream.into_body(), 1 << 20).await.unwrap()).unwrap());
    assert_eq!(events.last().unwrap(), "[DONE]");
    let said: String = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(said, whole["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn a_flood_of_headers_is_431_over_http_2_too() {
    let server = Server::start(&[]).await;
    let client = Client2::new(&server);
    assert_eq!(client.models(90, 10, 0).await.unwrap().0, StatusCode::OK);
    for (headers, bytes, path) in [(101, 1, 0), (5000, 1, 0), (1, 70_000, 0), (4, 100_000, 0), (0, 0, 9000)] {
        let (status, body) = client.models(headers, bytes, path).await.unwrap();
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{headers} {bytes} {path}");
        let error = serde_json::from_str::<ErrorBody>(&body).unwrap_or_else(|_| panic!("no JSON: {body}")).error;
        assert_eq!(error.code.as_deref(), Some("headers_too_large"), "{headers} {bytes} {path}");
    }
    // Far beyond, the status says it, or the connection ends.
    let before = server.peak_memory();
    for (headers, bytes) in [(1, 600_000), (10, 1_000_000), (20_000, 400)] {
        match Client2::new(&server).models(headers, bytes, 0).await {
            Ok((status, _)) => assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{headers} {bytes}"),
            Err(error) => println!("{headers} headers of {bytes} bytes: {error}"),
        }
        assert_eq!(client.models(1, 1, 0).await.unwrap().0, StatusCode::OK);
    }
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
}

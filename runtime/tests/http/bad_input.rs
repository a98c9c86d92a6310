//! Every kind of bad request: an OpenAI-shaped 4xx that names the field, and a server that goes on.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::server::{Server, about_picture, answer, data_url, question};

/// Checks the shape of an error and gives param, code and message.
fn error(body: &Value) -> (Option<&str>, Option<&str>, &str) {
    let error = &body["error"];
    assert!(error["type"].is_string() && body.as_object().unwrap().len() == 1, "{body}");
    (error["param"].as_str(), error["code"].as_str(), error["message"].as_str().unwrap())
}

fn with_image(url: &str) -> Value {
    question(&json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]}]}))
}

const IMAGE: &str = "messages[0].content[1].image_url";

#[tokio::test]
async fn wrong_fields_are_named_with_400() {
    let server = Server::start(&[]).await;
    let parts = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for (body, param) in [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "robot", "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
        (parts(json!({"type": "text"})), "messages[0].content[0].text"),
        (parts(json!({"type": "input_audio"})), "messages[0].content[0]"),
        (parts(json!({"type": "image_url", "image_url": "x"})), "messages[0].content[0].image_url"),
        (question(&json!({"max_tokens": "8"})), "max_tokens"),
        (question(&json!({"max_tokens": 0})), "max_tokens"),
        (question(&json!({"max_completion_tokens": 1.5})), "max_completion_tokens"),
        (question(&json!({"temperature": 3})), "temperature"),
        (question(&json!({"temperature": "hot"})), "temperature"),
        (question(&json!({"top_p": 0})), "top_p"),
        (question(&json!({"seed": "x"})), "seed"),
        (question(&json!({"stop": ["a", "b", "c", "d", "e"]})), "stop"),
        (question(&json!({"stop": 5})), "stop"),
        (question(&json!({"n": 129})), "n"),
        (question(&json!({"stream": "yes"})), "stream"),
        (question(&json!({"stream_options": {"include_usage": "x"}})), "stream_options.include_usage"),
    ] {
        let (status, answer) = server.ask(&body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert_eq!(error(&answer).0, Some(param), "{body}: {answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
}

#[tokio::test]
async fn what_is_no_json_is_400() {
    let server = Server::start(&[]).await;
    for body in ["", "{", "nonsense", "{\"messages\": [", "[1, 2", "\u{0}\u{1}"] {
        let request = server.post().header(CONTENT_TYPE, "application/json").body(body);
        let (status, answer) = answer(request.send().await.unwrap()).await;
        assert_eq!(status, 400, "{body}");
        assert!(error(&answer).2.contains("not valid JSON"), "{answer}");
    }
    let deep = "[".repeat(100_000);
    let request = server.post().header(CONTENT_TYPE, "application/json").body(deep);
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn pictures_that_cannot_be_used_are_named() {
    let server = Server::start(&[]).await;
    for (url, hint) in [
        ("https://example.com/x.png", "--allow-image-urls"),
        ("http://169.254.169.254/latest", "--allow-image-urls"),
        ("file:///etc/passwd", "--image-root"),
        ("x.png", "no data URL"),
        ("data:image/png,abc", "not in base64"),
        ("data:image/png;base64,$$$$", "invalid base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,aGVsbG8gd29ybGQ=", "image"),
        ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAE=", "image"),
    ] {
        let (status, answer) = server.ask(&with_image(url)).await;
        assert_eq!(status, 400, "{url}: {answer}");
        let (param, _, message) = error(&answer);
        assert_eq!(param, Some(IMAGE), "{url}");
        assert!(message.contains(hint), "{url}: {message}");
    }
}

#[tokio::test]
async fn pictures_that_are_too_large_are_413() {
    for (flags, limit) in [(["--max-image-pixels", "100"], "100"), (["--max-image-bytes", "90"], "90")] {
        let server = Server::start(&flags).await;
        let (status, answer) = server.ask(&with_image(&data_url())).await;
        assert_eq!(status, 413, "{answer}");
        let (param, code, message) = error(&answer);
        assert_eq!((param, code), (Some(IMAGE), Some("image_too_large")));
        assert!(message.contains(limit), "{message}");
    }
}

#[tokio::test]
async fn a_picture_that_claims_to_be_huge_is_refused_from_its_header() {
    let server = Server::start(&[]).await;
    // An uncompressed bitmap of 65 000 by 65 000 pixels, of which only the header is sent.
    let mut bitmap = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bitmap.extend([65_000_u32.to_le_bytes(), 65_000_u32.to_le_bytes()].concat());
    bitmap.extend(b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let url = format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bitmap));
    let (status, answer) = server.ask(&with_image(&url)).await;
    assert_eq!(status, 413, "{answer}");
    assert!(error(&answer).2.contains("40000000"), "{answer}");
}

#[tokio::test]
async fn too_many_pictures_are_400() {
    let server = Server::start(&["--max-images-per-request", "1"]).await;
    assert_eq!(server.ask(&about_picture(&json!({}))).await.0, 200);
    let image = json!({"type": "image_url", "image_url": {"url": data_url()}});
    let body = json!({"messages": [{"role": "user", "content": [image, image]}]});
    let (status, answer) = server.ask(&body).await;
    assert_eq!(status, 400);
    assert_eq!(error(&answer).0, Some("messages"));
    assert!(error(&answer).2.contains("at most 1"), "{answer}");
}

#[tokio::test]
async fn a_wrong_model_is_404_and_names_the_right_one() {
    let server = Server::start(&[]).await;
    let (status, answer) = server.ask(&question(&json!({"model": "gpt-4o"}))).await;
    assert_eq!(status, 404);
    let (param, code, message) = error(&answer);
    assert_eq!((param, code), (Some("model"), Some("model_not_found")));
    assert!(message.contains("`gpt-4o`") && message.contains("`tiny`"), "{message}");
}

#[tokio::test]
async fn what_does_not_fit_the_context_is_400() {
    let server = Server::start(&["--max-tokens", "64"]).await;
    let (status, answer) = server.ask(&question(&json!({"max_tokens": 1000}))).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(error(&answer).0, Some("max_tokens"));
    assert_eq!(error(&answer).1, Some("context_length_exceeded"));
    for length in [200, 50_000] {
        let text = "word ".repeat(length);
        let body = json!({"messages": [{"role": "user", "content": text}]});
        let (status, answer) = server.ask(&body).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(error(&answer).0, Some("messages"));
        assert_eq!(error(&answer).1, Some("context_length_exceeded"));
    }
    let (status, answer) = server.ask(&question(&json!({"max_tokens": null}))).await;
    assert_eq!(status, 200, "{answer}");
    let server = Server::start(&["--max-tokens", "40"]).await;
    let (status, answer) = server.ask(&about_picture(&json!({"max_tokens": null}))).await;
    let (param, code, message) = error(&answer);
    assert_eq!((status, param, code), (400, Some("messages"), Some("context_length_exceeded")));
    assert!(message.contains("63 tokens, 47 of text and 16 of images, and the context holds 40"), "{message}");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_413_however_it_is_sent() {
    let server = Server::start(&["--max-body-bytes", "20000"]).await;
    let long = serde_json::to_vec(&question(&json!({"user": "x".repeat(30_000)}))).unwrap();
    let announced = server.post().header(CONTENT_TYPE, "application/json").body(long.clone());
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = long.chunks(1000).map(|piece| Ok(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let chunked = server.post().header(CONTENT_TYPE, "application/json").body(chunked);
    for request in [announced, chunked] {
        let (status, answer) = answer(request.send().await.unwrap()).await;
        assert_eq!(status, 413);
        assert_eq!(error(&answer).1, Some("body_too_large"));
        assert!(error(&answer).2.contains("20000"));
    }
}

#[tokio::test]
async fn other_content_types_are_415() {
    let server = Server::start(&[]).await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "image/png"] {
        let request = server.post().header(CONTENT_TYPE, kind).body("{}");
        let (status, answer) = answer(request.send().await.unwrap()).await;
        assert_eq!(status, 415, "{kind}");
        assert!(error(&answer).2.contains("multipart/form-data"), "{answer}");
    }
    assert_eq!(server.post().send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn other_routes_and_methods_have_error_bodies() {
    let server = Server::start(&[]).await;
    let (status, body) = answer(server.get("/v1/chat/nothing").await).await;
    assert_eq!((status, error(&body).1), (404, Some("unknown_url")));
    let (status, body) = answer(server.get("/v1/chat/completions").await).await;
    assert_eq!((status, error(&body).1), (405, Some("method_not_allowed")));
}

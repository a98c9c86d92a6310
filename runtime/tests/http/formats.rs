//! Pictures of every format that people have, sent as clients send them: the model sees the pixels that another decoder sees.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::server::{Server, answer, checkpoint, url_of};

/// Endings of files of which decoders may differ by a little: formats that lose something, and inks.
const NEAR: [&str; 5] = ["jpg", "lossy.webp", "jpeg.tif", "animated.webp", "cmyk.tif"];
const QUESTION: &str = "What is shown?";

fn asked(url: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]}],
        "temperature": 0, "max_tokens": 6, "ignore_eos": true, "logprobs": true, "top_logprobs": 5})
}

#[tokio::test]
async fn every_format_is_seen_as_its_pixels_are() {
    let server = Server::start(&[]).await;
    let fixtures = checkpoint().with_file_name("pictures");
    let (mut exact, mut near, mut different, mut files) = (0, 0, Vec::new(), HashSet::new());
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        // Whatever type a data URL claims, the bytes say what they are.
        let url = format!("data:application/octet-stream;base64,{}", BASE64_STANDARD.encode(&bytes));
        let (status, seen) = server.ask(&asked(&url)).await;
        assert_eq!(status, 200, "{name}: {seen}");
        let form = Form::new().text("prompt", QUESTION).text("temperature", "0").text("max_tokens", "6");
        let form = form.text("ignore_eos", "true").text("logprobs", "true").text("top_logprobs", "5");
        let form = form.part("image", Part::bytes(bytes.clone()).file_name("photo"));
        let (status, sent) = answer(server.post().multipart(form).send().await.unwrap()).await;
        assert_eq!((status, &sent["choices"]), (200, &seen["choices"]), "{name}");
        let pixels = std::fs::read(fixtures.join("expected").join(format!("{name}.png"))).unwrap();
        let (status, expected) = server.ask(&asked(&url_of(&pixels))).await;
        assert_eq!(status, 200, "{name}: {expected}");
        assert_eq!(seen["usage"]["prompt_tokens"], expected["usage"]["prompt_tokens"], "{name}");
        files.extend([bytes, pixels]);
        if NEAR.iter().any(|end| name.ends_with(end)) {
            near += 1;
            continue;
        }
        exact += 1;
        if seen["choices"] != expected["choices"] {
            different.push(name);
        }
    }
    assert!(different.is_empty(), "{different:?}");
    assert!(exact >= 40 && near >= 10, "{exact} and {near}");
    assert_eq!(server.metric("vlm_image_decode_seconds_count").await, files.len() as u64);
}

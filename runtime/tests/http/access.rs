//! Keys, origins, and what the log tells of a request.

use reqwest::Method;
use serde_json::json;

use super::server::{Server, about_picture, answer, checkpoint, data_url, question};

const KEY: &str = "sk-0123456789abcdef0123456789abcdef";

async fn keyed() -> Server {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("sk-another-key-of-somebody\n{KEY}\n")).unwrap();
    Server::start(&["--api-key-file", file.path().to_str().unwrap()]).await
}

#[tokio::test]
async fn without_a_key_only_probes_are_answered() {
    let server = keyed().await;
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
    }
    for path in ["/v1/models", "/v1/models/tiny", "/nothing", "/v1/chat/completions", "//health", "/health/"] {
        assert_eq!(server.get(path).await.status(), 401, "{path}");
    }
    for key in ["", "Bearer", "Bearer ", "Basic abc", "Bearer sk-0123456789abcdef0123456789abcdeF", KEY] {
        let response = server.post().header("authorization", key).json(&question(&json!({}))).send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (status, body) = answer(response).await;
        assert_eq!((status, body["error"]["code"].as_str()), (401, Some("invalid_api_key")), "{key}");
        assert!(body["error"]["message"].as_str().unwrap().contains("Authorization: Bearer"));
    }
    for key in [KEY, "sk-another-key-of-somebody"] {
        let request = server.post().bearer_auth(key).json(&question(&json!({})));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_log_names_requests_and_nothing_in_them() {
    let server = Server::start_in(&checkpoint(), &[], &[("VLM_API_KEY", KEY), ("RUST_LOG", "debug")]).await;
    let secret = "the colour of my umbrella";
    let mut body = about_picture(&json!({}));
    body["messages"][0]["content"][1]["text"] = secret.into();
    let request = server.post().bearer_auth(KEY).header("x-request-id", "req-17").json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "req-17");
    let text: serde_json::Value = response.json().await.unwrap();
    let answer = text["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let wrong = server.post().bearer_auth("sk-a-wrong-key-of-a-stranger").json(&body).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    let log = async || server.log();
    server.until("both are in the log", async || log().await.matches("/v1/chat/completions").count() >= 2).await;
    let log = server.log();
    assert!(log.contains("req-17") && log.contains("status=200") && log.contains("status=401"), "{log}");
    for content in [secret, KEY, "sk-a-wrong-key", &data_url()[30..80], answer.trim()] {
        assert!(content.is_empty() || !log.contains(content), "{content} is in\n{log}");
    }
}

#[tokio::test]
async fn unusable_keys_end_the_start_and_are_not_shown() {
    let model = checkpoint();
    let words = ["serve", "--model", model.to_str().unwrap(), "--host", "127.0.0.1", "--port", "0"];
    let output = super::server::command(&words).env("VLM_API_KEY", "short").output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("API key 1") && !complaint.contains("short"), "{complaint}");
}

#[tokio::test]
async fn pages_of_named_origins_may_ask_and_no_others() {
    let server = Server::start(&["--cors-origin", "https://chat.example.com"]).await;
    let preflight = |origin: &'static str| {
        let url = format!("{}/v1/chat/completions", server.base);
        let request = server.client.request(Method::OPTIONS, url).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type").send()
    };
    let allowed = preflight("https://chat.example.com").await.unwrap();
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://chat.example.com");
    assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization,content-type");
    assert!(allowed.headers()["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    assert!(!preflight("https://evil.example").await.unwrap().headers().contains_key("access-control-allow-origin"));
    let ask = server.post().header("origin", "https://chat.example.com").json(&question(&json!({})));
    let answered = ask.send().await.unwrap();
    assert_eq!(answered.status(), 200);
    assert_eq!(answered.headers()["access-control-allow-origin"], "https://chat.example.com");
    assert!(answered.headers().get_all("vary").iter().any(|vary| vary == "origin"));

    let closed = Server::start(&[]).await;
    let ask = closed.post().header("origin", "https://chat.example.com").json(&question(&json!({})));
    assert!(!ask.send().await.unwrap().headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn names_that_vllm_uses_can_be_left_out() {
    let server = Server::start(&[]).await;
    assert_eq!(server.metric("vllm:num_requests_running{model_name=\"tiny\"}").await, 0);
    let without = Server::start(&["--no-vllm-metrics"]).await;
    assert!(!without.get("/metrics").await.text().await.unwrap().contains("vllm:"));
}

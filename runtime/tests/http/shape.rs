//! The shape of answers, whole and streamed, and the small endpoints.

use serde_json::{Value, json};

use super::server::{Server, about_picture, answer, checkpoint, events, question};

#[tokio::test]
async fn a_whole_answer_has_the_shape_that_clients_expect() {
    let server = Server::start(&[]).await;
    let (status, body) = server.ask(&about_picture(&json!({}))).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny");
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &body["choices"][0];
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    assert_eq!(choice["finish_reason"], "length");
    let expected = std::fs::read(checkpoint().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let prompt = expected["input_ids"].as_array().unwrap().len();
    let usage = |cached: usize| {
        json!({"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12,
               "prompt_tokens_details": {"cached_tokens": cached}})
    };
    assert_eq!(body["usage"], usage(0));
    let again = server.ask(&about_picture(&json!({}))).await.1;
    assert_eq!(again["choices"][0]["message"], choice["message"]);
    // All whole blocks of 32 tokens before the last token, the picture in them.
    let cached = (prompt - 1) / 32 * 32;
    assert_eq!(again["usage"], usage(cached));
    assert_eq!(server.metric("vlm_prefix_cache_hit_tokens_total").await, cached as u64);
    assert_eq!(server.metric("vlm_encoder_cache_misses_total").await, 1);
    assert_eq!(server.metric("vlm_vision_tiles_total").await, 1);
}

#[tokio::test]
async fn a_stream_gives_the_whole_answer_in_the_right_order() {
    let server = Server::start(&[]).await;
    let (_, whole) = server.ask(&about_picture(&json!({}))).await;
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = server.post().json(&about_picture(&asked)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = events(&response.text().await.unwrap());
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk["model"], "tiny");
    }
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!(last["choices"][0], json!({"index": 0, "delta": {}, "finish_reason": "length"}));
    let mut text = String::new();
    for chunk in chunks {
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(chunk.get("usage"), None);
        text += chunk["choices"][0]["delta"]["content"].as_str().unwrap();
    }
    assert_eq!(text, whole["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn a_stream_has_no_usage_chunk_unless_asked() {
    let server = Server::start(&[]).await;
    let response = server.post().json(&question(&json!({"stream": true}))).send().await.unwrap();
    for event in events(&response.text().await.unwrap()) {
        assert!(!event.contains("usage") && !event.contains("\"choices\":[]"), "{event}");
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_it() {
    let server = Server::start(&[]).await;
    let asked = json!({"max_tokens": 24, "ignore_eos": true});
    let (_, whole) = server.ask(&about_picture(&asked)).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let characters: Vec<char> = text.chars().collect();
    let stop: String = characters[characters.len() / 2..][..2].iter().collect();
    let before = &text[..text.find(&stop).unwrap()];
    for stream in [false, true] {
        let asked = json!({"max_tokens": 24, "ignore_eos": true, "stop": [stop], "stream": stream});
        let response = server.post().json(&about_picture(&asked)).send().await.unwrap();
        let (mut sent, mut reason) = (String::new(), Value::Null);
        if stream {
            let mut chunks = events(&response.text().await.unwrap());
            chunks.pop();
            for chunk in chunks {
                let choice = serde_json::from_str::<Value>(&chunk).unwrap()["choices"][0].clone();
                sent += choice["delta"]["content"].as_str().unwrap_or("");
                reason = choice["finish_reason"].clone();
            }
        } else {
            let (_, body) = answer(response).await;
            sent = body["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
            reason = body["choices"][0]["finish_reason"].clone();
        }
        assert_eq!(sent, before, "streamed: {stream}");
        assert_eq!(reason, "stop");
    }
}

#[tokio::test]
async fn a_seed_makes_sampling_repeatable() {
    let server = Server::start(&[]).await;
    let text = async |seed: i64| {
        let asked = json!({"temperature": 1.5, "seed": seed, "max_tokens": 32, "ignore_eos": true});
        server.ask(&question(&asked)).await.1["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(text(7).await, text(7).await);
    assert_eq!(text(-7).await, text(-7).await);
    assert_ne!(text(7).await, text(8).await);
}

#[tokio::test]
async fn the_models_are_listed_under_all_their_names() {
    let server = Server::start(&["--served-model-name", "org/other", "--max-tokens", "512"]).await;
    let (status, list) = answer(server.get("/v1/models").await).await;
    assert_eq!(status, 200);
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny", "org/other"]);
    assert_eq!(list["data"][0]["max_model_len"], 512);
    for path in ["/v1/models/org/other", "/v1/models/org%2Fother"] {
        let (status, model) = answer(server.get(path).await).await;
        assert_eq!((status, &model["id"]), (200, &json!("org/other")));
    }
    let (status, body) = server.ask(&question(&json!({"model": "org/other"}))).await;
    assert_eq!((status, &body["model"]), (200, &json!("org/other")));
    let (status, body) = answer(server.get("/v1/models/nothing").await).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn request_ids_are_given_back_or_made() {
    let server = Server::start(&[]).await;
    let sent = server.client.get(format!("{}/v1/models", server.base));
    let id = async |value: &str| {
        let request = sent.try_clone().unwrap().header("x-request-id", value);
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("mine-1").await, "mine-1");
    assert_ne!(id("not mine").await, "not mine");
}

#[tokio::test]
async fn the_log_has_no_contents() {
    let server = Server::start(&[]).await;
    let secret = "zebra-crossing";
    let body = json!({"messages": [{"role": "user", "content": secret}], "max_tokens": 3});
    assert_eq!(server.ask(&body).await.0, 200);
    let wrong = json!({"messages": [{"role": "user", "content": {"x": secret}}]});
    assert_eq!(server.ask(&wrong).await.0, 400);
    server.until("both requests in the log", async || server.log().matches("/v1/chat/completions").count() == 2).await;
    assert!(!server.log().contains(secret), "{}", server.log());
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let server = Server::start(&["--max-concurrency", "3"]).await;
    let (_, body) = server.ask(&about_picture(&json!({}))).await;
    server.ask(&json!({"messages": []})).await;
    assert_eq!(server.metric("vlm_requests_arrived_total{via=\"direct\"}").await, 2);
    assert_eq!(server.metric("vlm_requests_finished_total{reason=\"length\"}").await, 1);
    assert_eq!(server.metric("vlm_requests_capacity").await, 3);
    assert_eq!(server.metric("vlm_generation_tokens_total").await, 12);
    let prompt = body["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(server.metric("vlm_prompt_tokens_total").await, prompt);
    assert_eq!(server.metric("vlm_time_to_first_token_seconds_count").await, 1);
    assert_eq!(server.metric("vlm_inter_token_latency_seconds_count").await, 11);
    assert_eq!(server.metric("vlm_image_decode_seconds_count").await, 1);
    assert_eq!(server.metric("vlm_requests_waiting{stage=\"media\"}").await, 0);
    server.until("nothing runs", async || server.metric("vlm_requests_running").await == 0).await;
}

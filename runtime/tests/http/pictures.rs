//! What becomes of pictures: decoded once, and in as much detail as is asked for.

use futures::future::join_all;
use serde_json::{Value, json};

use super::server::{Server, about_picture, checkpoint, data_url, long, url_of};

#[tokio::test]
async fn a_picture_is_decoded_once_however_often_it_is_repeated() {
    let server = Server::start(&["--max-concurrency", "4"]).await;
    let image = json!({"type": "image_url", "image_url": {"url": data_url()}});
    let content = json!([image, image, {"type": "text", "text": "The same?"}]);
    let mut running = long(&json!({}));
    running["messages"] = json!([{"role": "user", "content": content}]);
    running["max_tokens"] = 500.into();
    let response = server.post().json(&running).send().await.unwrap();
    assert_eq!(response.status(), 200);
    // While that stream runs, the same picture is asked about by others.
    let others = join_all((0..4).map(|_| async { server.ask(&about_picture(&json!({}))).await })).await;
    assert!(others.iter().all(|(status, _)| *status == 200));
    assert_eq!(server.metric("vlm_image_decode_seconds_count").await, 1);
    assert_eq!(server.metric("vlm_image_decodes_shared_total").await, 5);
    assert_eq!(server.metric("vlm_image_bytes_count").await, 6);
    assert_eq!(server.metric("vlm_image_tiles_count").await, 6);
    assert!(response.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(server.metric("vlm_queue_wait_seconds_count").await, 5);
    // Nobody uses it any more, and the next who asks finds it all the same.
    for asked in 1..4 {
        assert_eq!(server.ask(&about_picture(&json!({}))).await.0, 200);
        assert_eq!(server.metric("vlm_image_decodes_shared_total").await, 5 + asked);
    }
    assert_eq!(server.metric("vlm_image_decode_seconds_count").await, 1);
}

#[tokio::test]
async fn little_detail_is_one_tile_of_the_same_decoded_picture() {
    for model in ["internvl2_internlm2_chat", "llava_next_mistral_hub"] {
        let model = checkpoint().with_file_name(model);
        let server = Server::start_on(&model, &[]).await;
        let url = url_of(&std::fs::read(model.join("images/0.png")).unwrap());
        let tokens = async |detail: Value| {
            let image = json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
            let content = json!([image, {"type": "text", "text": "?"}]);
            let body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 2});
            let (status, answer) = server.ask(&body).await;
            assert_eq!(status, 200, "{answer}");
            answer["usage"]["prompt_tokens"].as_u64().unwrap()
        };
        let low = tokens(json!("low")).await;
        let high = tokens(json!("high")).await;
        assert!(low < high, "{low} and {high} tokens");
        assert_eq!((tokens(json!("auto")).await, tokens(Value::Null).await), (high, high));
        // It was decoded once, and prepared once for each number of tiles.
        assert_eq!(server.metric("vlm_image_decode_seconds_count").await, 1);
        assert_eq!(server.metric("vlm_image_decodes_shared_total").await, 3);
        assert_eq!(server.metric("vlm_encoder_cache_misses_total").await, 2);
        let wrong = json!({"type": "image_url", "image_url": {"url": url, "detail": "blurred"}});
        let (status, answer) = server.ask(&json!({"messages": [{"role": "user", "content": [wrong]}]})).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("messages[0].content[0].image_url.detail")));
    }
}

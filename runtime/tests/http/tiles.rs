//! Several pictures for a model that cuts them into tiles.

use serde_json::{Value, json};

use super::server::{Server, checkpoint, url_of};

#[tokio::test]
async fn several_pictures_share_the_tiles_of_one_where_the_context_is_short() {
    let model = checkpoint().with_file_name("internvl2_internlm2_chat");
    let url = url_of(&std::fs::read(model.join("images/0.png")).unwrap());
    let image = json!({"type": "image_url", "image_url": {"url": url}});
    let content = json!([image, image, image, {"type": "text", "text": "Compare."}]);
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": content}], "ignore_eos": true});
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();

    let roomy = Server::start_on(&model, &[]).await;
    let mut short_answer = body.clone();
    short_answer["max_tokens"] = 1.into();
    let (status, answer) = roomy.ask(&short_answer).await;
    assert_eq!(status, 200, "{answer}");
    let whole = tokens(&answer);

    let tight = Server::start_on(&model, &["--max-tokens", &whole.to_string()]).await;
    let (status, answer) = tight.ask(&body).await;
    assert_eq!(status, 200, "{answer}");
    // Three times the tokens of 12 tiles and the whole picture, or of no more than 4 and the whole picture.
    assert!(tokens(&answer) <= whole - 3 * 52 + 3 * 20, "{} of {whole}", tokens(&answer));
    // Cut twice, and decoded once.
    assert_eq!(tight.metric("vlm_image_decode_seconds_count").await, 1);

    let hopeless = Server::start_on(&model, &["--max-tokens", "220"]).await;
    let (status, answer) = hopeless.ask(&body).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("of text and") && message.contains("holds 220"), "{message}");
}

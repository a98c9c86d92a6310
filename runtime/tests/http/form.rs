//! Forms, as curl and browsers send them.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::server::{Server, about_picture, answer, events, png, question};

fn picture() -> Part {
    Part::bytes(png()).file_name("x.png").mime_str("image/png").unwrap()
}

fn asked() -> Form {
    Form::new().text("prompt", "What is shown in this image?").text("max_tokens", "12").text("temperature", "0")
}

async fn send(server: &Server, form: Form) -> (u16, Value) {
    answer(server.post().multipart(form).send().await.unwrap()).await
}

#[tokio::test]
async fn a_form_gives_the_answer_that_json_gives() {
    let server = Server::start(&[]).await;
    let (_, expected) = server.ask(&about_picture(&json!({}))).await;
    let expected = &expected["choices"][0]["message"]["content"];
    let (status, body) = send(&server, asked().part("image", picture())).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(&body["choices"][0]["message"]["content"], expected);
    let messages = r#"[{"role": "user", "content": "What is shown in this image?"}]"#;
    let form = Form::new().text("messages", messages).text("max_tokens", "12").part("image", picture());
    let (status, body) = send(&server, form).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(&body["choices"][0]["message"]["content"], expected);
    let form = asked().text("stream", "true").part("image", picture());
    let response = server.post().multipart(form).send().await.unwrap();
    let mut events = events(&response.text().await.unwrap());
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let text: String = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned))
        .collect();
    assert_eq!(&json!(text), expected);
}

#[tokio::test]
async fn several_pictures_take_their_tokens() {
    let server = Server::start(&[]).await;
    let (_, one) = send(&server, asked().part("image", picture())).await;
    let (status, two) = send(&server, asked().part("image", picture()).part("image", picture())).await;
    assert_eq!(status, 200, "{two}");
    let tokens = |body: &Value| body["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&two) >= tokens(&one) + 16, "{one} {two}");
    let (_, none) = send(&server, asked()).await;
    let (_, json) = server
        .ask(&question(&json!({"messages": [{"role": "user", "content": "What is shown in this image?"}]})))
        .await;
    assert_eq!(tokens(&none), tokens(&json));
}

#[tokio::test]
async fn wrong_forms_name_the_field() {
    let server = Server::start(&["--max-images-per-request", "1"]).await;
    let broken = Part::bytes(b"no picture".to_vec()).file_name("x.png");
    for (form, param) in [
        (Form::new().part("image", picture()), "prompt"),
        (asked().part("image", broken), "image[0]"),
        (asked().text("image", "x.png"), "image[0]"),
        (asked().part("file", picture()), "file"),
        (asked().part("image", picture()).part("image", picture()), "image"),
        (asked().text("top_p", "much"), "top_p"),
        (asked().text("top_p", "NaN"), "top_p"),
        (asked().text("messages", "[]"), "prompt"),
        (Form::new().text("messages", "nonsense"), "messages"),
    ] {
        let (status, body) = send(&server, form).await;
        assert_eq!((status, body["error"]["param"].as_str()), (400, Some(param)), "{body}");
    }
    let (status, body) = send(&server, asked().text("model", "other")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    let broken = server.post().header("content-type", "multipart/form-data").body("x");
    assert_eq!(answer(broken.send().await.unwrap()).await.0, 400);
}

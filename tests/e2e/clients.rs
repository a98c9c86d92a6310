//! The same picture and question give the reference's answer through every client, and bad
//! requests get an error of the API's own shape.

use std::process::Command;

use serde_json::{Value, json};
use vlm_tests::space::Space;
use vlm_tests::tools::{cache, root, run};

use crate::load::{long_question, question};

/// What the reference implementation of an example answered to single questions: picture, question, answer, tokens.
fn references(example: &str) -> Vec<Value> {
    let path = root().join("examples").join(example).join("references/references.json");
    let text = std::fs::read_to_string(path).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let single = |case: &&Value| case["history"].as_array().is_none_or(Vec::is_empty);
    let cases: Vec<_> = all["cases"].as_array().unwrap().iter().filter(single).cloned().collect();
    assert!(cases.len() >= 12);
    cases
}

fn picture(example: &str, case: &Value) -> String {
    format!("../{example}/references/{}", text(case, "picture"))
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("no {field} in {case}"))
}

fn curl(arguments: &[&str]) -> Value {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60"]).args(arguments);
    serde_json::from_str(&run(&mut command).unwrap()).unwrap()
}

fn by_data_url(base: &str, example: &str, case: &Value) -> Value {
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), question(&picture(example, case), text(case, "question"), 64).to_string()).unwrap();
    let data = format!("@{}", body.path().display());
    curl(&[&format!("{base}/v1/chat/completions"), "-H", "Content-Type: application/json", "--data-binary", &data])
}

fn by_form(base: &str, example: &str, case: &Value) -> Value {
    let image = format!("image=@{}", root().join("examples/tiny-llava").join(picture(example, case)).display());
    let prompt = format!("prompt={}", text(case, "question"));
    let url = format!("{base}/v1/chat/completions");
    curl(&[&url, "-F", "model=tiny-llava", "-F", "temperature=0", "-F", "max_tokens=64", "-F", &prompt, "-F", &image])
}

fn by_openai(base: &str, case: &Value, stream: bool) -> Value {
    let mut command = Command::new(cache().join("python/bin/python"));
    command.arg(root().join("tests/clients/ask.py")).args([base, "tiny-llava"]);
    command.arg(root().join("examples/tiny-llava").join(picture("tiny-llava", case))).arg(text(case, "question"));
    if stream {
        command.arg("--stream");
    }
    serde_json::from_str(&run(&mut command).unwrap()).unwrap()
}

fn assert_is_the_references(answered: &Value, case: &Value) {
    assert_eq!(answered["choices"][0]["message"]["content"], text(case, "answer"), "{case}");
    assert_eq!(answered["usage"]["prompt_tokens"], case["prompt_tokens"], "{case}");
    // The reference counts the end of text among its tokens.
    let completion = case["completion_tokens"].as_u64().map(|tokens| json!(tokens - 1));
    assert_eq!(Some(&answered["usage"]["completion_tokens"]), completion.as_ref(), "{case}");
}

/// InternVL in OpenGVLab's layout: another tower, another decoder, pictures cut into tiles.
#[tokio::test]
async fn the_second_family_answers_as_its_reference_does() {
    let space = Space::with_model("t-internvl").await;
    let weights = root().join("examples/tiny-internvl/model");
    vlm_tests::space::copy_folder(&weights, &space.volume().join("tiny-internvl"));
    space.apply(&json!({"model": {"uri": "pvc://tiny-llava/tiny-internvl"}})).unwrap();
    space.await_ready().await;
    let base = space.address();
    for case in references("tiny-internvl") {
        assert_is_the_references(&by_data_url(&base, "tiny-internvl", &case), &case);
        assert_is_the_references(&by_form(&base, "tiny-internvl", &case), &case);
    }
    space.close();
}

#[tokio::test]
async fn every_client_gets_the_answer_of_the_reference() {
    let space = Space::with_model("t-clients").await;
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let base = space.address();
    for (i, case) in references("tiny-llava").iter().enumerate() {
        let expected = text(case, "answer");
        for answered in [by_data_url(&base, "tiny-llava", case), by_form(&base, "tiny-llava", case)] {
            assert_is_the_references(&answered, case);
        }
        if i < 4 {
            let (whole, streamed) = (by_openai(&base, case, false), by_openai(&base, case, true));
            assert_eq!(whole["answer"], expected, "{case}");
            assert_eq!(streamed, whole, "{case}");
            assert_eq!(whole["prompt_tokens"], case["prompt_tokens"], "{case}");
        }
    }
    space.close();
}

#[tokio::test]
async fn bad_requests_through_the_service_get_an_error_that_names_the_field() {
    let space = Space::with_model("t-bad-requests").await;
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let (client, url) = (reqwest::Client::new(), space.address() + "/v1/chat/completions");
    let good = question("demo.png", "What is this?", 4);
    let changed = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap() = value;
        body.to_string()
    };
    let broken = json!("data:image/png;base64,aGVsbG8gd29ybGQ=");
    for (body, status, param) in [
        (changed("/messages/0/content/0/image_url/url", broken), 400, "messages[0].content[0].image_url"),
        (changed("/model", json!("gpt-4")), 404, "model"),
        (changed("/temperature", json!("hot")), 400, "temperature"),
        (changed("/max_tokens", json!(100_000)), 400, "max_tokens"),
        ("{\"model\": ".to_owned(), 400, ""),
    ] {
        let response = client.post(&url).header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{param}");
        let error: Value = response.json().await.unwrap();
        let found = error["error"]["param"].as_str().unwrap_or_default();
        assert!(found.starts_with(param), "{param}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().len() > 10, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    }
    space.close();
}

#[tokio::test]
async fn a_full_queue_is_told_through_the_service_and_nothing_accepted_is_lost() {
    let space = Space::with_model("t-full-queue").await;
    let one = json!({"context": {"maxConcurrency": 1}, "scaling": {"minReplicas": 1, "maxReplicas": 1}});
    space.apply(&one).unwrap();
    space.await_ready().await;
    let (client, url) = (reqwest::Client::new(), space.address() + "/v1/chat/completions");
    let body = long_question(100);
    // One runs and 64 wait, but of these places one in 16 is kept for other clients.
    let requests = (0..96).map(|_| async {
        let response = client.post(&url).json(&body).send().await.unwrap();
        let (status, after) = (response.status().as_u16(), response.headers().get("retry-after").cloned());
        (status, after, response.json::<Value>().await.unwrap())
    });
    let (mut answered, mut refused) = (0, 0);
    for (status, after, body) in futures::future::join_all(requests).await {
        if status == 200 {
            assert_eq!(body["usage"]["completion_tokens"], 100, "{body}");
            answered += 1;
            continue;
        }
        assert_eq!(status, 429, "{body}");
        assert_eq!(body["error"]["code"], "queue_full", "{body}");
        assert!(after.unwrap().to_str().unwrap().parse::<u64>().unwrap() >= 1);
        refused += 1;
    }
    assert!(answered >= 61 && refused > 0, "{answered} answered, {refused} refused");
    space.close();
}

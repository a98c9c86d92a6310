//! Every way in which a model cannot be loaded becomes one reason, and goes when it is mended.

use serde_json::{Value, json};
use vlm_tests::cluster::await_that;
use vlm_tests::provoked::Provoked;
use vlm_tests::space::{Space, copy_folder};
use vlm_tests::tools::root;

use crate::load::question;
use crate::zero::{gateway, named};

/// Sends a request through the gateway, as soon as that knows the model; gives status, `x-vlm-reason` and body.
async fn ask(body: Value) -> (u16, String, String) {
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/chat/completions", gateway()));
    await_that("the gateway knows the model", 30, || async {
        let response = client.post(&url).json(&body).send().await.map_err(|e| format!("{e:?}"))?;
        let status = response.status().as_u16();
        let reason = response.headers().get("x-vlm-reason").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reason = reason.to_owned();
        let text = response.text().await.map_err(|e| format!("{e:?}"))?;
        if status == 404 { Err(text) } else { Ok((status, reason, text)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_claim_is_volume_not_found_and_its_creation_recovers() {
    let case = Provoked::within(Space::empty("t-no-volume").await).await;
    case.fails(&json!({}), "VolumeNotFound", true, &["PersistentVolumeClaim tiny-llava"]).await;
    copy_folder(&root().join("examples/tiny-llava/model"), &case.space.volume().join("tiny-llava"));
    let from = case.watch.len();
    case.space.add_claim();
    case.recovers(from, "VolumeNotFound").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_path_is_model_not_found_with_the_words_of_the_runtime() {
    let case = Provoked::with_model("t-no-model").await;
    let elsewhere = json!({"model": {"uri": "pvc://tiny-llava/elsewhere"}});
    case.fails(&elsewhere, "ModelNotFound", true, &["/models/elsewhere", "exit code 10"]).await;
    let from = case.watch.len();
    case.space.apply(&json!({})).unwrap();
    case.recovers(from, "ModelNotFound").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_weights_are_weights_corrupt_until_they_are_whole_and_who_waits_is_told() {
    let case = Provoked::with_model("t-corrupt").await;
    let weights = case.space.volume().join("tiny-llava/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let from = case.watch.len();
    case.space.apply(&json!({})).unwrap();
    // Who asks before that is known waits, and is told with everybody else.
    let asking = tokio::spawn(ask(named(&case.space, question("demo.png", "What is drawn here?", 4))));
    case.told(from, "WeightsCorrupt", true, &["model.safetensors"]).await;
    let (status, reason, text) = asking.await.unwrap();
    assert_eq!((status, reason.as_str()), (503, "WeightsCorrupt"), "{text}");
    assert!(text.contains("cannot_start") && text.contains("model.safetensors"), "{text}");
    let from = case.watch.len();
    std::fs::write(&weights, &bytes).unwrap();
    case.recovers(from, "WeightsCorrupt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_model_type_is_unsupported_architecture() {
    let case = Provoked::with_model("t-unknown").await;
    let config = case.space.volume().join("tiny-llava/config.json");
    let good = std::fs::read(&config).unwrap();
    let mut value: Value = serde_json::from_slice(&good).unwrap();
    value["model_type"] = json!("blip-2");
    value["architectures"] = json!(["Blip2ForConditionalGeneration"]);
    std::fs::write(&config, value.to_string()).unwrap();
    case.fails(&json!({}), "UnsupportedArchitecture", true, &["lip"]).await;
    let from = case.watch.len();
    std::fs::write(&config, good).unwrap();
    case.recovers(from, "UnsupportedArchitecture").await;
}

//! Every way in which a model cannot be loaded becomes one reason, and goes when it is mended.

use serde_json::{Value, json};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::{Space, copy_folder};
use vlm_tests::tools::root;

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
async fn truncated_weights_are_weights_corrupt_until_they_are_whole() {
    let case = Provoked::with_model("t-corrupt").await;
    let weights = case.space.volume().join("tiny-llava/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    case.fails(&json!({}), "WeightsCorrupt", true, &["model.safetensors"]).await;
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

//! Every way in which a model cannot be loaded becomes one reason, and goes when it is mended.

use std::time::Instant;

use serde_json::json;
use vlm_tests::cluster::{condition, get, kubectl};
use vlm_tests::space::Space;

/// Waits for a stalled `VisionModel` and returns its message.
async fn stalled(space: &Space, reason: &str) -> String {
    let began = Instant::now();
    let ready = space.await_condition("Ready", "False", reason, 60).await;
    let stalled = condition(&space.model(), "Stalled");
    assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!(reason)));
    println!("{reason} after {:.1} s: {}", began.elapsed().as_secs_f64(), ready["message"]);
    ready["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_missing_claim_is_volume_not_found_and_its_creation_recovers() {
    let space = Space::empty("t-no-volume").await;
    space.apply(&json!({})).unwrap();
    let message = stalled(&space, "VolumeNotFound").await;
    assert!(message.contains("tiny-llava"), "{message}");
    space.add_claim();
    vlm_tests::space::copy_folder(
        &vlm_tests::tools::root().join("examples/tiny-llava/model"),
        &space.volume().join("tiny-llava"),
    );
    space.await_ready().await;
    assert_ne!(condition(&space.model(), "Stalled")["status"], "True");
    space.close();
}

#[tokio::test]
async fn a_missing_path_is_model_not_found_with_the_words_of_the_runtime() {
    let space = Space::with_model("t-no-model").await;
    space.apply(&json!({"model": {"uri": "pvc://tiny-llava/elsewhere"}})).unwrap();
    let message = stalled(&space, "ModelNotFound").await;
    assert!(message.contains("/models/elsewhere") && message.contains("exit code 10"), "{message}");
    let events = kubectl(&["get", "events", "-n", &space.name, "-o", "json"]).unwrap();
    let events: serde_json::Value = serde_json::from_str(&events).unwrap();
    let of_model = events["items"].as_array().unwrap().iter();
    let told = of_model.filter(|e| e["reason"] == "ModelNotFound" && e["involvedObject"]["kind"] == "VisionModel");
    assert_eq!(told.count(), 1, "one Event per transition");
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    space.close();
}

#[tokio::test]
async fn truncated_weights_are_weights_corrupt() {
    let space = Space::with_model("t-corrupt").await;
    let weights = space.volume().join("tiny-llava/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    space.apply(&json!({})).unwrap();
    let message = stalled(&space, "WeightsCorrupt").await;
    assert!(message.contains("model.safetensors"), "{message}");
    space.close();
}

#[tokio::test]
async fn an_unknown_model_type_is_unsupported_architecture() {
    let space = Space::with_model("t-unknown").await;
    let config = space.volume().join("tiny-llava/config.json");
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    value["model_type"] = json!("blip-2");
    value["architectures"] = json!(["Blip2ForConditionalGeneration"]);
    std::fs::write(&config, value.to_string()).unwrap();
    space.apply(&json!({})).unwrap();
    let message = stalled(&space, "UnsupportedArchitecture").await;
    assert!(message.contains("lip"), "{message}");
    space.close();
}

#[tokio::test]
async fn a_quota_is_told_while_reconciling() {
    let space = Space::with_model("t-quota").await;
    vlm_tests::cluster::apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: none, namespace: {}}}\nspec: {{hard: {{pods: '0'}}}}",
        space.name
    ))
    .unwrap();
    space.apply(&json!({})).unwrap();
    let ready = space.await_condition("Ready", "False", "QuotaExceeded", 60).await;
    assert!(ready["message"].as_str().unwrap().contains("quota"), "{ready}");
    let model = space.model();
    assert_eq!(condition(&model, "Reconciling")["status"], "True");
    assert_ne!(condition(&model, "Stalled")["status"], "True");
    kubectl(&["delete", "resourcequota", "none", "-n", &space.name]).unwrap();
    // The ReplicaSet controller retries with a growing pause; a rollout restart would hide that.
    space.await_condition("Ready", "True", "", 180).await;
    assert!(get("deployment", "tiny-llava", &space.name).is_some());
    space.close();
}

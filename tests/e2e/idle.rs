//! Idle models cost the API server nothing but leases, by the audit log.

use serde_json::json;
use vlm_tests::cluster::OPERATOR;
use vlm_tests::idle::{Window, many, writes};
use vlm_tests::space::Space;

#[tokio::test]
async fn an_idle_minute_of_two_hundred_models_writes_nothing_but_leases() {
    let _undisturbed = OPERATOR.read().await;
    // Of the models of one name the oldest has it, and is told so when another goes: this one is never the oldest.
    let older = Space::with_model("t-idle-older").await;
    older.apply(&json!({"replicas": 0})).unwrap();
    older.await_ready().await;
    let space = Space::with_model("t-idle").await;
    space.apply(&json!({})).unwrap();
    many(&space, 200, 0).await;
    space.await_ready().await;
    // Windows of one stable period after Ready may still end a transition.
    let window = Window::after_settling(&space, 60).await;
    let found = writes(&window, |entry| {
        let by_operator = entry["user"]["username"].as_str().unwrap_or_default().contains(":vlm-system:");
        let here = entry["objectRef"]["namespace"] == space.name.as_str();
        // Other tests' models change meanwhile.
        here || (by_operator && entry["objectRef"]["namespace"].as_str().is_none_or(|n| n == "vlm-system"))
    });
    assert!(found.is_empty(), "{} writes while idle: {found:#?}", found.len());
    space.close();
    older.close();
}

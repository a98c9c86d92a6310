//! Weights from a hub: each pod fetches them before its server starts, and what goes wrong there is told as any
//! other failure.

use serde_json::{Value, json};
use vlm_tests::cluster::{apply, condition, kubectl};
use vlm_tests::hub::{self, LONG_NAME, PRIVATE, PUBLIC, TOKEN};
use vlm_tests::space::Space;

use crate::load::question;

fn secret(space: &Space, token: &str) {
    apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: hub, namespace: {}}}\nstringData: {{token: {token}}}",
        space.name
    ))
    .unwrap();
}

fn events(space: &Space, reason: &str) -> usize {
    let text = kubectl(&["get", "events", "-n", &space.name, "-o", "json"]).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let of_model = |e: &&Value| e["reason"] == reason && e["involvedObject"]["kind"] == "VisionModel";
    all["items"].as_array().unwrap().iter().filter(of_model).count()
}

pub async fn answers(space: &Space) {
    let url = space.address() + "/v1/chat/completions";
    let body = question("demo.png", "What is this?", 16);
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert!(!answer["choices"][0]["message"]["content"].as_str().unwrap().is_empty(), "{answer}");
}

#[tokio::test]
async fn a_repository_is_fetched_at_one_commit_and_served() {
    hub::start().await;
    let space = Space::empty("t-hub").await;
    space.apply(&json!({"model": {"uri": PUBLIC}})).unwrap();
    space.await_ready().await;
    answers(&space).await;
    let resolved = space.model()["status"]["resolved"].clone();
    let commit = resolved["revision"].as_str().unwrap().to_owned();
    assert_eq!((commit.len(), &resolved["source"]), (40, &json!(format!("{PUBLIC}@main"))), "{resolved}");
    let pod = space.pods().remove(0);
    let arguments = pod["spec"]["initContainers"][0]["args"].as_array().unwrap();
    assert!(arguments.contains(&json!(commit)) && !arguments.contains(&json!("main")), "{arguments:?}");
    // Another number of replicas is no reason to look for another commit.
    kubectl(&["scale", "visionmodel/tiny-llava", "-n", &space.name, "--replicas=2"]).unwrap();
    space.await_condition("Ready", "True", "", 60).await;
    assert_eq!(space.model()["status"]["resolved"]["revision"], json!(commit));
    space.close();
}

#[tokio::test]
async fn a_private_repository_is_denied_until_its_token_is_there() {
    hub::start().await;
    let space = Space::empty("t-hub-private").await;
    space.apply(&json!({"model": {"uri": PRIVATE}})).unwrap();
    let denied = space.await_condition("Ready", "False", "ModelAccessDenied", 10).await;
    let message = denied["message"].as_str().unwrap();
    assert!(message.contains("tiny/private") && message.contains("tokenSecretRef"), "{message}");
    assert_eq!(condition(&space.model(), "Stalled")["status"], "True");
    assert!(space.pods().is_empty(), "no pod for what cannot be read");
    assert_eq!(events(&space, "ModelAccessDenied"), 1);

    let with_token = json!({"model": {"uri": PRIVATE, "tokenSecretRef": {"name": "hub", "key": "token"}}});
    space.apply(&with_token).unwrap();
    let missing = space.await_condition("Ready", "False", "ContainerConfigError", 30).await;
    assert!(missing["message"].as_str().unwrap().contains("hub"), "{missing}");

    secret(&space, "hf_wrong");
    let not_seen = space.await_condition("Ready", "False", "ModelNotFound", 60).await;
    let message = not_seen["message"].as_str().unwrap();
    assert!(message.contains("container inspect") && message.contains("exit code 10"), "{message}");
    assert!(space.pods().is_empty(), "no pod of the model before its checkpoint is known");

    secret(&space, TOKEN);
    kubectl(&["delete", "pods", "-n", &space.name, "--all", "--wait=false"]).unwrap();
    space.await_condition("Ready", "True", "", 60).await;
    answers(&space).await;
    let (model, pod) = (space.model(), space.pods().remove(0));
    let commit = model["status"]["resolved"]["revision"].as_str().unwrap();
    assert!(pod["spec"]["initContainers"][0]["args"].to_string().contains(commit), "fetched as it was looked at");
    assert_eq!(model["status"]["resolved"]["architecture"], "LLaVA-1.5");
    assert!(!space.model().to_string().contains(TOKEN) && !space.model().to_string().contains("hf_wrong"));
    space.close();
}

#[tokio::test]
async fn a_revision_that_does_not_exist_is_model_not_found_and_goes_when_it_is_mended() {
    hub::start().await;
    let space = Space::empty("t-hub-revision").await;
    space.apply(&json!({"model": {"uri": PUBLIC, "revision": "v9"}})).unwrap();
    let missing = space.await_condition("Ready", "False", "ModelNotFound", 10).await;
    assert!(missing["message"].as_str().unwrap().contains("v9"), "{missing}");
    space.apply(&json!({"model": {"uri": PUBLIC}})).unwrap();
    space.await_ready().await;
    assert_ne!(condition(&space.model(), "Stalled")["status"], "True");
    space.close();
}

#[tokio::test]
async fn a_download_that_fails_is_told_with_its_exit_code_and_goes_when_it_is_mended() {
    hub::start().await;
    let cases = [
        // Nobody listens there.
        (
            "t-hub-unreachable",
            json!({"model": {"uri": PUBLIC}, "pod": {"env": [{"name": "HF_ENDPOINT", "value": "http://127.0.0.1:9"}]}}),
            "WeightsDownloadFailed",
            ["container fetch", "exit code 14"],
        ),
        (
            "t-hub-long-name",
            json!({"model": {"uri": LONG_NAME}}),
            "StartFailed",
            ["File name too long", "exit code 20"],
        ),
    ];
    let all = cases.map(|(name, spec, reason, words)| async move {
        let space = Space::empty(name).await;
        space.apply(&spec).unwrap();
        let told = space.await_condition("Ready", "False", reason, 180).await;
        for word in words {
            assert!(told["message"].as_str().unwrap().contains(word), "{told}");
        }
        assert_eq!(condition(&space.model(), "Stalled")["status"], "False", "only after the deadline");
        assert_eq!(events(&space, reason), 1);
        space.apply(&json!({"model": {"uri": PUBLIC}})).unwrap();
        space.await_ready().await;
        space.close();
    });
    futures::future::join_all(all).await;
}

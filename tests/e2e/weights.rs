//! Weights from a hub: each pod fetches them before its server starts, and what goes wrong there is told as any
//! other failure.

use serde_json::{Value, json};
use vlm_tests::cluster::{apply, kubectl};
use vlm_tests::hub::{self, LONG_NAME, PRIVATE, PUBLIC, TOKEN};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;

use crate::load::question;

fn secret(space: &Space, token: &str) {
    apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: hub, namespace: {}}}\nstringData: {{token: {token}}}",
        space.name
    ))
    .unwrap();
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
    let case = Provoked::within(Space::empty("t-hub-private").await).await;
    let words = ["tiny/private", "tokenSecretRef"];
    case.fails(&json!({"model": {"uri": PRIVATE}}), "ModelAccessDenied", true, &words).await;
    let (space, from) = (&case.space, case.watch.len());
    assert!(space.pods().is_empty(), "no pod for what cannot be read");

    let with_token = json!({"model": {"uri": PRIVATE, "tokenSecretRef": {"name": "hub", "key": "token"}}});
    space.apply(&with_token).unwrap();
    let missing = space.await_condition("Ready", "False", "ContainerConfigError", 30).await;
    assert!(missing["message"].as_str().unwrap().contains("hub"), "{missing}");

    secret(space, "hf_wrong");
    let not_seen = space.await_condition("Ready", "False", "ModelNotFound", 60).await;
    let message = not_seen["message"].as_str().unwrap();
    assert!(message.contains("container inspect") && message.contains("exit code 10"), "{message}");
    assert!(space.pods().is_empty(), "no pod of the model before its checkpoint is known");

    secret(space, TOKEN);
    kubectl(&["delete", "pods", "-n", &space.name, "--all", "--wait=false"]).unwrap();
    case.recovered(from, "ModelAccessDenied").await;
    assert_eq!((case.events("ContainerConfigError"), case.events("ModelNotFound")), (1, 1));
    answers(space).await;
    let (model, pod) = (space.model(), space.pods().remove(0));
    let commit = model["status"]["resolved"]["revision"].as_str().unwrap();
    assert!(pod["spec"]["initContainers"][0]["args"].to_string().contains(commit), "fetched as it was looked at");
    assert_eq!(model["status"]["resolved"]["architecture"], "LLaVA-1.5");
    assert!(!space.model().to_string().contains(TOKEN) && !space.model().to_string().contains("hf_wrong"));
    case.space.close();
}

#[tokio::test]
async fn a_revision_that_does_not_exist_is_model_not_found_and_goes_when_it_is_mended() {
    hub::start().await;
    let case = Provoked::within(Space::empty("t-hub-revision").await).await;
    case.fails(&json!({"model": {"uri": PUBLIC, "revision": "v9"}}), "ModelNotFound", true, &["v9"]).await;
    let from = case.watch.len();
    case.space.apply(&json!({"model": {"uri": PUBLIC}})).unwrap();
    case.recovers(from, "ModelNotFound").await;
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
        let case = Provoked::within(Space::empty(name).await).await;
        // Not stalled: only after the deadline.
        case.fails(&spec, reason, false, &words).await;
        let from = case.watch.len();
        case.space.apply(&json!({"model": {"uri": PUBLIC}})).unwrap();
        case.recovers(from, reason).await;
    });
    futures::future::join_all(all).await;
}

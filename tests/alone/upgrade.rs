//! Upgrading the operator, and an image that does not exist.

use std::process::Command;

use serde_json::{Value, json};
use vlm_tests::cluster::{SYSTEM, await_that, condition, get, helm_install, list};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;
use vlm_tests::tools::run;
use vlm_tests::watch::Watch;

/// Names, uids and restarts of the model's pods.
fn pods(space: &Space) -> Vec<Value> {
    let of = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        json!([pod["metadata"]["name"], pod["metadata"]["uid"], container["restartCount"], container["containerID"]])
    };
    space.pods().iter().map(of).collect()
}

/// Names of the operator's pods that are not on their way out.
fn operators() -> Vec<String> {
    let all = list("pods", SYSTEM, "app.kubernetes.io/name=vlm-operator");
    let staying = all.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    staying.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn upgrading_the_operator_restarts_no_model_pod() {
    let space = Space::with_model("a-upgrade").await;
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let (before, old) = (pods(&space), operators());
    let version = env!("CARGO_PKG_VERSION");
    let to = "localhost/vlm-operator:next";
    for image in ["localhost/vlm-operator", "localhost/vlm-gateway"] {
        let (from, to) = (format!("{image}:{version}"), format!("{image}:next"));
        run(Command::new("ctr").args(["--namespace", "k8s.io", "images", "tag", "--force", &from, &to])).unwrap();
    }
    let watch = Watch::start(&space.name, "tiny-llava").await;
    helm_install(&["image.tag=next", &format!("image.runtimeTag={version}")]);
    let deployment = get("deployment", "vlm-operator", SYSTEM).unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], to);
    await_that("new operator pods alone", 60, || async {
        let now = operators();
        if now.iter().all(|name| !old.contains(name)) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    // The new operator acts, on the Deployment too, and still the template is what it was.
    let from = watch.len();
    space.apply(&json!({"rollout": {"progressDeadlineSeconds": 999}})).unwrap();
    watch.until_ready_is("True", "", from, 60).await;
    let deployment = get("deployment", "tiny-llava", &space.name).unwrap();
    assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 999);
    assert_eq!(pods(&space), before);
    let ready = watch.all().iter().all(|seen| condition(&seen.object, "Ready")["status"] == "True");
    assert!(ready, "Ready was lost meanwhile");
    space.close();
    helm_install(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_exist_is_told_and_stalls_after_the_deadline() {
    let (case, served) = (Provoked::with_model("a-image").await, Space::with_model("a-image-served").await);
    served.apply(&json!({})).unwrap();
    served.await_ready().await;
    helm_install(&["image.runtimeTag=missing"]);
    let watch = &case.watch;
    let words = ["localhost/vlm-runtime:missing", "spec.pod.imagePullSecrets", "container inspect", "pod tiny-llava-"];
    case.fails(&json!({"rollout": {"progressDeadlineSeconds": 15}}), "ImagePullError", false, &words).await;
    let stalled = |seen: &vlm_tests::watch::Seen| condition(&seen.object, "Stalled")["status"] == "True";
    let seen = watch.until("stalled after the deadline", 0, 60, stalled).await;
    assert_eq!(condition(&seen.object, "Stalled")["reason"], "ImagePullError");
    // What served before goes on serving.
    let model = served.model();
    assert_eq!(condition(&model, "Available")["status"], "True", "{model}");
    let from = watch.len();
    helm_install(&[]);
    case.recovers(from, "ImagePullError").await;
    served.close();
}

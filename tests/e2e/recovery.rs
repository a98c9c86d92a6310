//! Killing any part of it: the rest goes on, and it comes back by itself.

use futures::StreamExt as _;
use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, SYSTEM, await_that, get, kubectl, list};
use vlm_tests::space::Space;

use crate::load::{Load, long_question};

/// Names and addresses of the pods that take requests.
pub fn pod_names(space: &Space) -> Vec<(String, String)> {
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    space
        .pods()
        .iter()
        .filter(|p| ready(p))
        .map(|p| (text(&p["metadata"]["name"]), text(&p["status"]["podIP"])))
        .collect()
}

/// Streams from one pod while `meanwhile` runs after the first bytes; returns the whole body.
async fn stream_through(ip: &str, tokens: u32, meanwhile: impl FnOnce()) -> Result<String, String> {
    let mut body = long_question(tokens);
    body["stream"] = json!(true);
    let url = format!("http://{ip}:8000/v1/chat/completions");
    let response = reqwest::Client::new().post(url).json(&body).send().await.map_err(|e| format!("{e:?}"))?;
    let (mut chunks, mut text, mut meanwhile) = (response.bytes_stream(), String::new(), Some(meanwhile));
    while let Some(chunk) = chunks.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.map_err(|e| format!("{e:?} after {text}"))?));
        if let Some(act) = meanwhile.take() {
            act();
        }
    }
    Ok(text)
}

async fn two_replicas(name: &str) -> (Space, Vec<(String, String)>) {
    let space = Space::with_model(name).await;
    space.apply(&json!({"scaling": {"minReplicas": 2, "maxReplicas": 2}, "drain": {"timeoutSeconds": 60}})).unwrap();
    space.await_ready().await;
    let pods = await_that("two ready pods", 60, || async {
        let pods = pod_names(&space);
        if pods.len() == 2 { Ok(pods) } else { Err(format!("{pods:?}")) }
    })
    .await;
    (space, pods)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_model_pod_fails_no_request_on_the_other_and_is_replaced() {
    let (space, pods) = two_replicas("t-kill-pod").await;
    let (victim, survivor) = (pods[0].0.clone(), pods[1].1.clone());
    let kill = || _ = kubectl(&["delete", "pod", &victim, "-n", &space.name, "--grace-period=0", "--force"]).unwrap();
    let text = stream_through(&survivor, 300, kill).await.unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "the survivor's stream broke: {text}");
    await_that("the pod is replaced", 60, || async {
        let now = pod_names(&space);
        let replaced = now.len() == 2 && now.iter().all(|(name, _)| *name != victim);
        if replaced { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    space.await_ready().await;
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_finishes_its_stream_first() {
    let (space, pods) = two_replicas("t-drain-pod").await;
    let (name, ip) = pods[0].clone();
    let delete = || _ = kubectl(&["delete", "pod", &name, "-n", &space.name, "--wait=false"]).unwrap();
    let text = stream_through(&ip, 400, delete).await.unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "the draining stream broke: {text}");
    space.close();
}

/// The operator pod that holds the lease, by the name under which it holds it.
pub fn leader() -> Option<String> {
    let lease = get("lease", "vlm-operator", SYSTEM)?;
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

/// The pod of a holder of the lease.
pub fn pod_of(holder: &str) -> String {
    list("pods", SYSTEM, "app.kubernetes.io/name=vlm-operator")
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .find(|name| holder.contains(name.as_str()))
        .unwrap_or_else(|| panic!("no operator pod is the holder {holder}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_leader_hands_over_and_loses_no_request() {
    let _alone = OPERATOR.write().await;
    let (space, _) = two_replicas("t-kill-leader").await;
    let load = Load::start(&space.address(), 4, &long_question(100));
    let first = await_that("a leader", 30, || async { leader().ok_or_else(|| "none".to_owned()) }).await;
    let pod = pod_of(&first);
    kubectl(&["delete", "pod", &pod, "-n", SYSTEM, "--grace-period=0", "--force"]).unwrap();
    await_that("another leader", 60, || async {
        leader().filter(|holder| *holder != first).ok_or_else(|| format!("{first} still holds the lease"))
    })
    .await;
    // The new leader acts: a change of the spec reaches the Deployment.
    space.apply(&json!({"scaling": {"minReplicas": 1, "maxReplicas": 2}, "drain": {"timeoutSeconds": 33}})).unwrap();
    await_that("the new leader applies a change", 60, || async {
        let deployment = get("deployment", "tiny-llava", &space.name).unwrap();
        let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        if *grace == 48 { Ok(()) } else { Err(grace.to_string()) }
    })
    .await;
    let (answered, failures) = load.stop().await;
    assert!(answered > 0 && failures.is_empty(), "{answered} answered, failed: {failures:?}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_operator_pods_gone_at_once_come_back_and_act() {
    let _alone = OPERATOR.write().await;
    let (space, _) = two_replicas("t-kill-operator").await;
    let selector = "app.kubernetes.io/name=vlm-operator";
    let names = || -> Vec<String> {
        let all = list("pods", SYSTEM, selector);
        all.iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = names();
    kubectl(&["delete", "pods", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force"]).unwrap();
    kubectl(&["delete", "service", "tiny-llava", "-n", &space.name]).unwrap();
    await_that("the deleted Service is back", 90, || async {
        get("service", "tiny-llava", &space.name).map(|_| ()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    assert!(names().iter().all(|name| !before.contains(name)));
    space.await_ready().await;
    space.close();
}

//! How long it takes from a pod's failure to the reason on its `VisionModel`, and from the creation of one that
//! nothing can be made of to its condition. Pods that fail are on a made-up node, and their status is written as a
//! kubelet would write it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use vlm_contract::diagnosis::Cause;

use crate::cluster::cluster;
use crate::impossible;
use crate::made_up::{manifest, node, pod_of};
use crate::space::Space;
use crate::watch::Watch;

/// A reason, and the status of a pod that has it.
pub fn faults() -> Vec<(&'static str, Value)> {
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error", "message": "the last line"}});
    let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "as the kubelet says it"}});
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let none = json!({});
    let exit_codes = Cause::ALL.map(|cause| (cause.reason(), unready(&ended(cause.exit_code().into()), &none)));
    let others = vec![
        ("ImagePullError", unready(&waits("ImagePullBackOff"), &none)),
        ("ContainerConfigError", unready(&waits("CreateContainerConfigError"), &none)),
        ("ContainerOOMKilled", unready(&oom, &none)),
        ("ContainerCrashLoopBackOff", unready(&waits("CrashLoopBackOff"), &ended(3))),
        ("ProbeFailed", unready(&json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), &none)),
        ("Unschedulable", unscheduled()),
        (
            "PodEvicted",
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
                              "conditions": conditions("False"), "containerStatuses": []}),
        ),
    ];
    exit_codes.into_iter().chain(others).collect()
}

fn conditions(ready: &str) -> Value {
    let time = "2026-01-02T00:00:00Z";
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": time});
    json!([condition("PodScheduled", "True"), condition("ContainersReady", ready), condition("Ready", ready)])
}

fn unready(state: &Value, last: &Value) -> Value {
    status("False", state, last)
}

fn status(ready: &str, state: &Value, last: &Value) -> Value {
    let restarts = i32::from(last.get("terminated").is_some());
    json!({"phase": "Running", "conditions": conditions(ready), "containerStatuses": [{
        "name": "server", "image": "localhost/vlm-runtime:0", "imageID": "", "ready": ready == "True", "started": true,
        "restartCount": restarts, "state": state, "lastState": last}]})
}

fn unscheduled() -> Value {
    let mut status = unready(&json!({"waiting": {"reason": "ContainerCreating"}}), &json!({}));
    status["conditions"][0] = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                     "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."});
    status
}

/// Seconds from before the failure is written to the API server until a watch shows the reason, for
/// `rounds` failures of every reason on each of `lanes` models at the same time. Each model answers
/// again before it fails anew.
pub async fn measure(space: &Space, lanes: usize, rounds: usize) -> BTreeMap<&'static str, Vec<Duration>> {
    node().await;
    let all = (0..lanes).map(|lane| {
        let name = format!("lane-{lane}");
        async move { one_lane(space, &name, lane, rounds).await }
    });
    let mut samples = BTreeMap::<_, Vec<_>>::new();
    for (reason, took) in futures::future::join_all(all).await.into_iter().flatten() {
        samples.entry(reason).or_default().push(took);
    }
    samples
}

async fn one_lane(space: &Space, name: &str, lane: usize, rounds: usize) -> Vec<(&'static str, Duration)> {
    let watch = Watch::start(&space.name, name).await;
    crate::cluster::apply(&manifest(space, name, &json!({"replicas": 1}), true).to_string()).expect("apply");
    let api: Api<Pod> = Api::namespaced(cluster().await, &space.name);
    let write = |pod: String, status: Value| {
        let api = api.clone();
        async move {
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(&pod, &PatchParams::default(), &patch).await.expect("status of the pod");
        }
    };
    let answering = status("True", &json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), &json!({}));
    let (faults, mut samples) = (faults(), Vec::new());
    let mut pod = pod_of(space, name).await.name_any();
    for step in 0..rounds * faults.len() {
        // Models fail in different ways at the same time.
        let (reason, fault) = &faults[(step + lane) % faults.len()];
        let from = watch.len().saturating_sub(1);
        write(pod.clone(), answering.clone()).await;
        watch.until_ready_is("True", "Serving", from, 30).await;
        let (from, begun) = (watch.len(), Instant::now());
        write(pod.clone(), fault.clone()).await;
        let seen = watch.until_ready_is("False", reason, from, 30).await;
        samples.push((*reason, seen.at.duration_since(begun)));
        if *reason == "PodEvicted" {
            pod = pod_of(space, name).await.name_any();
        }
    }
    samples
}

/// Seconds from before a model that is valid and impossible is created until a watch shows its reason, `rounds` times
/// for each such spec; one of each at the same time.
pub async fn of_creation(prefix: &str, rounds: usize) -> BTreeMap<&'static str, Vec<Duration>> {
    let all = impossible::ALL.map(|impossible| async move {
        let case = impossible.case(prefix).await;
        let mut samples = Vec::new();
        for _ in 0..rounds {
            samples.push(impossible.told(&case).await);
            impossible.clear(&case).await;
        }
        case.space.close();
        (impossible.reason, samples)
    });
    futures::future::join_all(all).await.into_iter().collect()
}

/// Count, median, 99th percentile and maximum of each reason, in milliseconds.
pub fn summary(samples: &BTreeMap<&'static str, Vec<Duration>>) -> Value {
    let of = |times: &Vec<Duration>| {
        let mut times: Vec<_> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1].round();
        json!({"samples": times.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
    };
    samples.iter().map(|(reason, times)| ((*reason).to_owned(), of(times))).collect()
}

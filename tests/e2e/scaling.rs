//! Replicas follow the queue, by both metric paths, and yield to `kubectl scale`.

use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, apply, await_that, condition, kubectl};
use vlm_tests::space::Space;

use crate::load::{Load, long_question};
use crate::recovery::pod_names;
use crate::zero::QUERY;

fn windows(more: &Value) -> Value {
    let mut scaling = json!({"minReplicas": 1, "maxReplicas": 3, "stableSeconds": 12, "panicSeconds": 4,
                             "downStabilizationSeconds": 12, "target": {"queueDepth": 1, "concurrency": 2}});
    for (key, value) in more.as_object().unwrap() {
        scaling[key] = value.clone();
    }
    json!({"scaling": scaling, "context": {"maxConcurrency": 2}})
}

/// Within so many seconds after the load the replicas are back to the least.
async fn rises_and_falls(name: &str, scaling: &Value, back: u64) {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model(name).await;
    space.apply(&windows(scaling)).unwrap();
    space.await_ready().await;
    let load = Load::start(&space.address(), 8, &long_question(200));
    let peak = space.await_replicas("scale-up under load", 60, |n| n > 1).await;
    space.await_replicas("up to the maximum: ceil(8 / (2 + 1)) = 3", 60, |n| n == 3).await;
    let metrics = space.await_condition("MetricsAvailable", "True", "", 20).await;
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty(), "{answered} answered, failed: {failures:?}");
    space.await_replicas("back to the minimum", back, |n| n == 1).await;
    let history = space.model()["status"]["scaling"]["history"].clone();
    let all = history.as_array().unwrap();
    assert!((2..=10).contains(&all.len()), "{history}");
    assert!(all.iter().all(|entry| entry["reason"].is_string()), "{history}");
    println!("{name}: first step to {peak}, {answered} answers, {metrics}, {history}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_follow_the_queue_that_the_pods_report() {
    rises_and_falls("t-scale-pods", &json!({}), 120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_follow_the_query_that_prometheus_answers() {
    // What Prometheus says counts for a minute at least.
    rises_and_falls("t-scale-prometheus", &json!({"prometheus": {"query": QUERY}}), 180).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_still_answers_is_the_last_to_go() {
    let space = Space::with_model("t-scale-victims").await;
    let mut spec = windows(&json!({"minReplicas": 3}));
    spec["drain"] = json!({"timeoutSeconds": 120});
    space.apply(&spec).unwrap();
    space.await_ready().await;
    let pods = await_that("three pods that run", 60, || async {
        let pods = pod_names(&space);
        if pods.len() == 3 { Ok(pods) } else { Err(format!("{pods:?}")) }
    })
    .await;
    // Of three equals, Kubernetes would rather keep the oldest: the last by name is as good as any.
    let (busy, ip) = pods[2].clone();
    let load = Load::start(&format!("http://{ip}:8000"), 1, &long_question(400));
    spec["scaling"]["minReplicas"] = json!(1);
    space.apply(&spec).unwrap();
    space.await_replicas("two idle ones go", 120, |n| n == 1).await;
    let staying = await_that("one pod stays", 60, || async {
        let pods = pod_names(&space);
        if pods.len() == 1 { Ok(pods) } else { Err(format!("{pods:?}")) }
    })
    .await;
    assert_eq!(staying[0].0, busy);
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty(), "{answered} answered, failed: {failures:?}");
    space.close();
}

/// Kubernetes' own autoscaler: it finds the model and writes its scale; for the least that it allows it needs no metrics.
fn horizontal(space: &Space, least: u32) -> Value {
    let target = json!({"apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel", "name": "tiny-llava"});
    let resource = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
           "metadata": {"name": "tiny-llava", "namespace": space.name},
           "spec": {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": least,
                    "metrics": [{"type": "Resource", "resource": resource}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_scale_and_an_hpa_win_over_the_autoscaler_until_the_field_is_removed() {
    let space = Space::with_model("t-scale-by-hand").await;
    space.apply(&windows(&json!({}))).unwrap();
    space.await_ready().await;
    kubectl(&["scale", "visionmodel/tiny-llava", "-n", &space.name, "--replicas=2"]).unwrap();
    space.await_replicas("as scaled by hand", 30, |n| n == 2).await;
    space.await_ready().await;
    apply(&horizontal(&space, 3).to_string()).unwrap();
    space.await_replicas("as the HorizontalPodAutoscaler wants", 90, |n| n == 3).await;
    kubectl(&["delete", "hpa", "tiny-llava", "-n", &space.name]).unwrap();
    kubectl(&["scale", "visionmodel/tiny-llava", "-n", &space.name, "--replicas=0"]).unwrap();
    space.await_replicas("switched off", 30, |n| n == 0).await;
    space.await_condition("Available", "False", "", 30).await;
    let patch = r#"[{"op":"remove","path":"/spec/replicas"}]"#;
    kubectl(&["patch", "visionmodel", "tiny-llava", "-n", &space.name, "--type=json", "-p", patch]).unwrap();
    space.await_replicas("the autoscaler's minimum", 30, |n| n == 1).await;
    space.await_ready().await;
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_prometheus_is_told_and_changes_nothing() {
    let space = Space::with_model("t-scale-silent").await;
    let scaling = json!({"minReplicas": 1, "prometheus": {"query": "vlm_no_such_series{model=\"$name\"}"}});
    space.apply(&windows(&scaling)).unwrap();
    space.await_ready().await;
    let missing = space.await_condition("MetricsAvailable", "False", "", 90).await;
    assert!(missing["message"].as_str().unwrap().len() > 10, "{missing}");
    assert_eq!(space.written_replicas(), 1);
    assert_eq!(condition(&space.model(), "Ready")["status"], "True");
    space.close();
}

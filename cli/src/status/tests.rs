//! Each kind of state in the words that a person reads.

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-06-01T12:00:00Z";

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-06-01T11:50:00Z", "observedGeneration": 2,
    })
}

fn words(status: &Value) -> String {
    words_of(&json!({"model": {"uri": "pvc://weights/llava"}}), status)
}

fn words_of(spec: &Value, status: &Value) -> String {
    let model = json!({
        "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
        "metadata": {"name": "llava", "namespace": "vision", "generation": 2}, "spec": spec, "status": status,
    });
    in_words(&serde_json::from_value(model).unwrap(), NOW.parse().unwrap())
}

fn assert_words(status: &Value, expected: &[&str]) {
    let text = words(status);
    for part in expected {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}

#[test]
fn a_ready_model_says_so_and_where_it_answers() {
    assert_words(
        &json!({
            "observedGeneration": 2, "endpoint": "http://llava.vision.svc/v1",
            "replicas": {"desired": 2, "current": 2, "ready": 2, "updated": 2, "summary": "2/2"},
            "conditions": [
                condition("Ready", "True", "Serving", "every replica answers"),
                condition("Available", "True", "Serving", "every replica answers"),
                condition("Reconciling", "False", "Settled", "nothing is left to do"),
                condition("ScalingLimited", "False", "WithinLimits", "within limits"),
            ],
            "scaling": {"reason": "LoadRose", "history": [
                {"time": "2026-05-29T11:00:00Z", "from": 1, "to": 2, "reason": "LoadRose"},
            ]},
        }),
        &[
            "llava in vision: ready\n",
            "2 of 2 ready\n",
            "(Serving, 10 min ago)",
            "1 to 2, LoadRose, 3 days ago",
            "http://llava",
        ],
    );
}

#[test]
fn a_model_that_waits_says_for_what_and_since_when() {
    let status = json!({
        "observedGeneration": 2,
        "replicas": {"desired": 2, "current": 2, "ready": 0, "updated": 2, "summary": "0/2"},
        "conditions": [
            condition("Ready", "False", "Unschedulable", "no node takes the pod: 0/3 nodes have an nvidia.com/gpu"),
            condition("Reconciling", "True", "Unschedulable", "no node takes the pod: 0/3 nodes have an nvidia.com/gpu"),
            condition("Available", "False", "NoReplicaReady", "no replica answers"),
        ],
        "failures": [{"reason": "Unschedulable", "pod": "llava-1", "message": "0/3 nodes"}],
    });
    assert_words(
        &status,
        &[
            "llava in vision: not ready\n",
            "waits for  no node takes the pod: 0/3 nodes have an nvidia.com/gpu (Unschedulable, 10 min ago)",
            "0 of 2 ready, 2 not answering yet",
            "failure    Unschedulable (pod llava-1): 0/3 nodes",
            "Available is False",
        ],
    );
}

#[test]
fn a_stalled_model_asks_for_a_person() {
    let stalled = |available: &str| {
        json!({
            "observedGeneration": 2,
            "conditions": [
                condition("Ready", "False", "WeightsCorrupt", "the weights are damaged"),
                condition("Stalled", "True", "WeightsCorrupt", "the weights are damaged"),
                condition("Available", available, "x", "y"),
            ],
            "failures": [{"reason": "WeightsCorrupt", "pod": "a", "container": "server", "exitCode": 22, "message": "m"}],
        })
    };
    assert_words(
        &stalled("False"),
        &["stopped: nothing more happens by itself", "needs you  the weights", "container server, exit code 22"],
    );
    assert_words(&stalled("True"), &["stopped, but still answering"]);
}

#[test]
fn a_model_that_nobody_looked_at_says_that() {
    assert_words(&json!({"observedGeneration": -1}), &["not looked at yet", "is one running"]);
    let old = json!({"observedGeneration": 1, "conditions": [condition("Ready", "True", "Serving", "all well")]});
    assert_words(&old, &["not looked at yet", "latest change"]);
    assert!(!words(&old).contains("all well"), "what is said of an older generation is not said of this one");
    assert_words(&json!({"observedGeneration": 2}), &["the operator's first report"]);
}

#[test]
fn a_limit_that_was_reached_is_named_beside_a_ready_model() {
    assert_words(
        &json!({
            "observedGeneration": 2,
            "conditions": [
                condition("Ready", "True", "Serving", "every replica answers"),
                condition("Reconciling", "True", "Scaling", "replicas are added"),
                condition("ScalingLimited", "True", "MaxReplicasReached", "the load asks for 9 replicas"),
                condition("MetricsAvailable", "False", "MetricsStale", "pod a is silent"),
            ],
        }),
        &[
            "ready, and at work",
            "at work on replicas are added",
            "ScalingLimited is True: the load asks for 9",
            "pod a is silent",
        ],
    );
}

#[test]
fn times_are_told_in_their_largest_unit() {
    let now: Timestamp = NOW.parse().unwrap();
    for (seconds, expected) in
        [(-5, "0 s ago"), (119, "119 s ago"), (121, "2 min ago"), (7300, "2 h ago"), (172_800, "2 days ago")]
    {
        let then = Timestamp::from_second(now.as_second() - seconds).unwrap();
        assert_eq!(since(now, then), expected);
    }
}

#[test]
fn a_gpu_is_named_with_what_it_costs() {
    let spec = json!({"model": {"uri": "pvc://weights/llava"}, "gpu": {"type": "nvidia-l4"}});
    let status = json!({"observedGeneration": 2, "cost": {"perHour": "1.61"}, "conditions": []});
    let text = words_of(&spec, &status);
    assert!(text.contains("nvidia-l4 for each replica, 1.61 USD an hour in all\n"), "{text}");
    let text = words_of(&spec, &json!({"observedGeneration": 2, "conditions": []}));
    assert!(text.contains("nvidia-l4 for each replica\n"), "no price is known: {text}");
}

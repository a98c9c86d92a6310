//! What is read out of pods and of the status.

use jiff::Span;
use serde_json::{Value, json};

use super::*;

const ANSWER: &str = include_str!("../../../catalog/tests/models/InternVL2-1B.json");

fn inspection() -> Inspection {
    let found = vlm_catalog::inspection::Found {
        revision: None,
        weight_bytes: Some(1),
        tensors: None::<Vec<(&str, &[usize])>>,
    };
    Inspection::new(&serde_json::from_str(ANSWER).unwrap(), found).unwrap()
}

fn model(uri: &str, generation: i64) -> VisionModel {
    serde_json::from_value(json!({
        "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
        "metadata": {"name": "tiny", "namespace": "shop", "uid": "u1", "generation": generation},
        "spec": {"model": {"uri": uri}},
    }))
    .unwrap()
}

fn status(source: &str, fits: &str, generation: i64) -> VisionModelStatus {
    serde_json::from_value(json!({
        "observedGeneration": generation,
        "checkpoint": {"source": source, "inspection": serde_json::to_string(&inspection()).unwrap()},
        "conditions": [{"type": "FitsGPU", "status": fits, "reason": "x", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }))
    .unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

/// A pod of this name, `age` seconds old, whose container is in a state.
fn pod(name: &str, age: i64, phase: &str, state: &Value, last: &Value) -> Arc<Pod> {
    let created = now().checked_sub(Span::new().seconds(age)).unwrap();
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created.to_string()},
        "status": {"phase": phase, "containerStatuses": [{
            "name": "inspect", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
            "state": state, "lastState": last,
        }]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn ended(code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "x", "message": message}})
}

fn seen(pod: Arc<Pod>) -> Look {
    let wanted = Pod {
        metadata: kube::core::ObjectMeta { name: Some("a".to_owned()), ..pod.metadata.clone() },
        ..Pod::default()
    };
    look(&wanted, &[pod], now())
}

#[test]
fn the_answer_of_the_pod_is_taken_and_another_pods_is_not() {
    let answer = serde_json::to_string(&inspection()).unwrap();
    let told = seen(pod("a", 1, "Succeeded", &ended(0, &answer), &json!({})));
    assert_eq!(told, Look::Told(Arc::new(inspection())));
    assert_eq!(seen(pod("b", 1, "Succeeded", &ended(0, &answer), &json!({}))), Look::Absent);
    let mut going = pod("a", 1, "Succeeded", &ended(0, &answer), &json!({}));
    Arc::get_mut(&mut going).unwrap().metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(seen(going), Look::Pending(None));
}

#[test]
fn a_failure_has_the_reason_of_the_servers_and_stands_between_two_attempts() {
    let diagnosis = r#"{"reason": "ModelNotFound", "message": "/models/x is not there"}"#;
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:59Z"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    for state in [ended(10, diagnosis), waiting, running.clone()] {
        let Look::Pending(Some(problem)) = seen(pod("a", 1, "Running", &state, &ended(10, diagnosis))) else {
            panic!("{state}")
        };
        assert_eq!((problem.trouble, problem.exit_code), (Trouble::ModelNotFound, Some(10)));
        assert!(problem.describe().contains("container inspect"), "{}", problem.describe());
    }
    assert_eq!(seen(pod("a", 1, "Running", &running, &json!({}))), Look::Pending(None), "the first attempt");
    let unpullable = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no"}});
    let Look::Pending(Some(problem)) = seen(pod("a", 1, "Pending", &unpullable, &json!({}))) else { panic!() };
    assert_eq!(problem.trouble, Trouble::ImagePullError);
}

#[test]
fn a_pod_that_has_failed_for_good_is_replaced_after_a_while() {
    let evicted = |age| {
        let mut pod = pod("a", age, "Failed", &ended(137, ""), &json!({}));
        Arc::get_mut(&mut pod).unwrap().status.as_mut().unwrap().reason = Some("Evicted".to_owned());
        seen(pod)
    };
    assert!(matches!(evicted(1), Look::Pending(Some(p)) if p.trouble == Trouble::PodEvicted));
    assert!(matches!(evicted(20), Look::Over(p) if p.trouble == Trouble::PodEvicted));
    let babble = |age| seen(pod("a", age, "Succeeded", &ended(0, "{}"), &json!({})));
    assert!(matches!(babble(1), Look::Pending(Some(p)) if p.trouble == Trouble::StartFailed));
    assert!(matches!(babble(60), Look::Over(p) if p.message.contains("cannot be read")));
}

#[test]
fn what_the_status_has_is_not_looked_at_again() {
    let uri = "pvc://weights/tiny";
    assert_eq!(noted(&model(uri, 1), &status(uri, "True", 1)), Some(Arc::new(inspection())));
    assert_eq!(noted(&model(uri, 2), &status(uri, "True", 1)), Some(Arc::new(inspection())), "another field changed");
    assert_eq!(noted(&model("pvc://weights/other", 2), &status(uri, "True", 1)), None);
    // It may have been replaced in its place: only a person's edit tells.
    assert_eq!(noted(&model(uri, 2), &status(uri, "False", 2)), Some(Arc::new(inspection())));
    assert_eq!(noted(&model(uri, 2), &status(uri, "False", 1)), None);
    let hub = "hf://org/tiny@main";
    assert_eq!(noted(&model("hf://org/tiny", 2), &status(hub, "False", 1)), Some(Arc::new(inspection())), "a commit");
    assert_eq!(noted(&model("hf://org/tiny", 1), &status("hf://org/tiny@v2", "True", 1)), None);
}

#[test]
fn a_note_is_read_as_it_was_written_and_a_changed_one_is_none() {
    let model = model("hf://org/tiny", 1);
    let mut status = VisionModelStatus {
        checkpoint: note(&model, &VisionModelStatus::default(), &inspection()),
        ..VisionModelStatus::default()
    };
    assert_eq!(noted(&model, &status), Some(Arc::new(inspection())));
    // Other white space is no reason to write.
    status.checkpoint.as_mut().unwrap().inspection.push(' ');
    assert_eq!(note(&model, &status, &inspection()), status.checkpoint);
    status.checkpoint.as_mut().unwrap().inspection = "{}".to_owned();
    assert_eq!(noted(&model, &status), None);
}

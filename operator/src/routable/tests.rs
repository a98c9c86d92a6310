//! Which pods wait for a gateway.

use serde_json::{Value, json};

use super::*;

fn pod(conditions: &[(&str, &str)]) -> Pod {
    let conditions: Vec<_> = conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "a", "namespace": "shop", "uid": "u"},
        "spec": {"containers": [], "readinessGates": [{"conditionType": CONDITION}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions},
    }))
    .unwrap()
}

#[test]
fn a_pod_waits_for_a_gateway_when_nothing_else_is_missing() {
    let ready = [("ContainersReady", "True"), ("Ready", "False")];
    assert!(is_due(&pod(&ready)));
    for told in ["False", "Unknown"] {
        assert!(is_due(&pod(&[ready[0], ready[1], (CONDITION, told)])), "it is asked again");
    }
    assert!(!is_due(&pod(&[ready[0], ready[1], (CONDITION, "True")])), "what was true once stays true");
    assert!(!is_due(&pod(&[("ContainersReady", "False"), ready[1]])), "its server is not ready");
    assert!(!is_due(&pod(&[ready[0], ("Ready", "True")])), "another one has found it ready");
    let mut other = pod(&ready);
    other.spec.as_mut().unwrap().readiness_gates = None;
    assert!(!is_due(&other), "it was made without the gate");
    let mut leaving = pod(&ready);
    leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert!(!is_due(&leaving));
}

#[test]
fn what_hinders_a_pod_is_told_as_long_as_it_waits() {
    let with = |told: &str, containers: &str| {
        let mut pod = pod(&[("ContainersReady", containers), ("Ready", "False")]);
        let told: Value = json!({"type": CONDITION, "status": told, "message": "it answered 500"});
        let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions.push(serde_json::from_value(told).unwrap());
        pod
    };
    assert_eq!(hindrance(&with("False", "True")), Some((Hindrance::NoAnswer, "it answered 500")));
    assert_eq!(hindrance(&with("Unknown", "True")).map(|(what, _)| what), Some(Hindrance::NoGateway));
    assert_eq!(hindrance(&with("False", "False")), None, "now its server is at fault");
    assert_eq!(hindrance(&with("True", "True")), None);
    assert_eq!(hindrance(&pod(&[("ContainersReady", "True"), ("Ready", "False")])), None, "nothing is known yet");
}

#[test]
fn only_what_differs_is_written() {
    let there = |status: &str, message: String| PodCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        message: Some(message),
        ..PodCondition::default()
    };
    let told = Told::No("it answered 500".to_owned());
    assert!(told.differs(None));
    assert!(!told.differs(Some(&there("False", told.message()))));
    assert!(told.differs(Some(&there("Unknown", told.message()))));
    assert!(told.differs(Some(&there("False", "it answered 503".to_owned()))));
}

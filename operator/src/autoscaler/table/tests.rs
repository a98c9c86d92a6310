//! Where a number of replicas comes from, and what changes it.

use serde_json::{Value, json};

use super::*;
use crate::demand::{reading::Reading, track::QueryAnswer};

fn model(spec: &Value) -> VisionModel {
    let mut whole = json!({
        "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
        "metadata": {"name": "tiny", "namespace": "shop", "uid": "u1"},
        "spec": {"model": {"uri": "pvc://weights/tiny"}},
    });
    whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn at(seconds: u64) -> Moment {
    Moment { now: Duration::from_secs(seconds), time: Timestamp::from_second(seconds.cast_signed()).unwrap() }
}

fn busy(running: f64) -> Round {
    let reading = Reading { running, capacity: 8.0, ..Reading::default() };
    Round::Pods(vec![PodAnswer { pod: "p1".to_owned(), ready: true, reading: Some(reading) }])
}

fn up_to(max: i32) -> Value {
    json!({"scaling": {"maxReplicas": max}})
}

#[test]
fn a_new_model_starts_with_the_least_and_one_that_runs_keeps_what_it_has() {
    let spec = json!({"scaling": {"minReplicas": 2, "maxReplicas": 9}});
    assert_eq!(Table::default().settle(&model(&spec), None, at(0)).desired, 2);
    let view = Table::default().settle(&model(&spec), Some(7), at(0));
    assert_eq!((view.desired, view.reason.as_str()), (7, decision::TAKEN_OVER));
}

#[test]
fn a_restart_says_what_was_said_before() {
    let table = Table::default();
    let mut model = model(&up_to(9));
    table.settle(&model, Some(1), at(0));
    let proposal = Decision { to: 4, reason: decision::LOAD_ROSE, limited: false, inputs: Inputs::default() };
    assert!(table.commit(&key(&model), 1, &proposal, Source::Pods, at(1).time));
    let view = table.settle(&model, Some(1), at(2));
    let status = json!({"scaling": {"reason": view.reason, "history": view.history}});
    model.status = Some(serde_json::from_value(status).unwrap());
    let after = Table::default().settle(&model, Some(4), at(100));
    assert_eq!((after.desired, after.reason, after.history), (view.desired, view.reason, view.history));
}

#[test]
fn a_fixed_number_wins_and_the_autoscaler_goes_on_from_it() {
    let table = Table::default();
    table.settle(&model(&up_to(9)), Some(3), at(0));
    let fixed = table.settle(&model(&json!({"replicas": 5, "scaling": {"maxReplicas": 9}})), Some(3), at(1));
    assert_eq!((fixed.desired, fixed.auto.is_none()), (5, true));
    let free = table.settle(&model(&up_to(9)), Some(5), at(2));
    assert_eq!((free.desired, free.auto.is_some()), (5, true));
    let off = table.settle(&model(&json!({"replicas": 0})), Some(5), at(3));
    assert_eq!(off.desired, 0);
    assert_eq!(table.settle(&model(&up_to(9)), Some(0), at(4)).desired, 1);
}

#[test]
fn new_limits_hold_at_once_and_stand_in_the_history() {
    let table = Table::default();
    table.settle(&model(&up_to(9)), Some(6), at(0));
    let view = table.settle(&model(&up_to(4)), Some(6), at(1));
    assert_eq!((view.desired, view.reason.as_str()), (4, decision::LIMITS_CHANGED));
    assert_eq!((view.history[0].from, view.history[0].to), (6, 4));
}

#[test]
fn an_object_that_was_deleted_and_made_again_starts_anew() {
    let table = Table::default();
    let mut model = model(&up_to(9));
    table.settle(&model, Some(6), at(0));
    model.metadata.uid = Some("u2".to_owned());
    assert_eq!(table.settle(&model, None, at(1)).desired, 1);
}

#[test]
fn load_is_proposed_committed_once_and_kept_with_its_inputs() {
    let table = Table::default();
    let model = model(&up_to(9));
    table.settle(&model, Some(1), at(0));
    let policy = Policy::new(&model.spec.scaling(), 8, false);
    let round = busy(40.0);
    let Next::Change { from, decision } = table.take_in(&key(&model), &policy, (&round, None), at(2).now) else {
        panic!()
    };
    assert_eq!((from, decision.to), (1, 4));
    assert_eq!(table.in_flight(&key(&model), "p1"), Some(40.0));
    assert!(table.commit(&key(&model), from, &decision, Source::Pods, at(2).time));
    assert!(!table.commit(&key(&model), from, &decision, Source::Pods, at(2).time), "the number has changed meanwhile");
    let view = table.settle(&model, Some(1), at(3));
    let inputs = view.history[0].inputs.clone().unwrap();
    assert_eq!((view.desired, inputs.load.as_str(), inputs.per_replica), (4, "40.0", 10));
}

#[test]
fn only_what_the_status_shows_is_worth_a_report() {
    let table = Table::default();
    let model = model(&up_to(9));
    table.settle(&model, Some(1), at(0));
    let policy = Policy::new(&model.spec.scaling(), 8, false);
    let take = |running, seconds| table.take_in(&key(&model), &policy, (&busy(running), None), at(seconds).now);
    assert_eq!(take(1.0, 2), Next::Report, "metrics are seen for the first time");
    assert_eq!(take(2.0, 4), Next::Nothing);
    assert_eq!(take(5.0, 6), Next::Nothing);
}

#[test]
fn ten_decisions_are_kept() {
    let table = Table::default();
    let model = model(&up_to(99));
    table.settle(&model, Some(1), at(0));
    for n in 1..30 {
        let next = Decision { to: n + 1, reason: decision::LOAD_ROSE, limited: false, inputs: Inputs::default() };
        assert!(table.commit(&key(&model), n, &next, Source::Pods, at(1).time));
    }
    let history = table.settle(&model, Some(1), at(2)).history;
    assert_eq!((history.len(), history[0].to), (10, 30));
    table.retain(|_, _| false);
    assert_eq!(table.settle(&model, None, at(2)).desired, 1);
}

#[test]
fn a_new_source_of_the_load_is_not_bound_by_what_the_old_one_taught() {
    let (table, model) = (Table::default(), model(&up_to(9)));
    let policy = Policy::new(&model.spec.scaling(), 4, false);
    table.settle(&model, Some(1), at(0));
    let pods = |second: u64| {
        let finished = Some(second as f64);
        let reading =
            Reading { running: 4.0, waiting: 2.0, capacity: 4.0, arrived: Some(0.0), finished, ..Reading::default() };
        Round::Pods(vec![PodAnswer { pod: "p1".to_owned(), ready: true, reading: Some(reading) }])
    };
    for second in (2..60).step_by(2) {
        table.take_in(&key(&model), &policy, (&pods(second), None), at(second).now);
    }
    // By the pods' completions alone, no arrivals in sight, it would be 2.
    let query = QueryRound { ready: 1, pods: 1, answer: QueryAnswer::Load(36.0), direct: None };
    let next = table.take_in(&key(&model), &policy, (&Round::Prometheus(query), None), at(60).now);
    assert!(matches!(next, Next::Change { from: 1, ref decision } if decision.to == 6), "{next:?}");
}

fn sleepy(more: &Value) -> Value {
    let mut spec = json!({"scaling": {"minReplicas": 0, "maxReplicas": 9}});
    spec["scaling"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn asked(mut model: VisionModel, seconds: i64) -> VisionModel {
    let time = Timestamp::from_second(seconds).unwrap();
    model.status = Some(serde_json::from_value(json!({"wake": {"requestedAt": time}})).unwrap());
    model
}

#[test]
fn a_new_model_starts_one_replica_to_show_that_it_can_unless_it_is_told_not_to() {
    assert_eq!(Table::new(true).settle(&model(&sleepy(&json!({}))), None, at(0)).desired, 1);
    let never = sleepy(&json!({"zero": {"verify": "Never"}}));
    assert_eq!(Table::new(true).settle(&model(&never), None, at(0)).desired, 0);
    assert_eq!(Table::new(false).settle(&model(&never), None, at(0)).desired, 1, "nobody would wake it");
    assert_eq!(Table::new(true).settle(&model(&sleepy(&json!({}))), Some(0), at(0)).desired, 0);
    assert_eq!(Table::new(false).settle(&model(&sleepy(&json!({}))), Some(0), at(0)).desired, 1);
}

#[test]
fn a_gateway_s_request_wakes_a_model_that_sleeps_and_none_from_before() {
    let table = Table::new(true);
    let sleeping = model(&sleepy(&json!({})));
    table.settle(&sleeping, Some(1), at(50));
    let idle = Decision { to: 0, reason: decision::IDLE, limited: false, inputs: Inputs::default() };
    assert!(table.commit(&key(&sleeping), 1, &idle, Source::Pods, at(100).time));
    assert_eq!(table.settle(&asked(sleeping.clone(), 99), Some(0), at(101)).desired, 0);
    let woken = table.settle(&asked(sleeping.clone(), 101), Some(0), at(101));
    assert_eq!((woken.desired, woken.reason.as_str()), (1, decision::WOKEN));
    // A request does no more than wake it.
    assert_eq!(table.settle(&asked(sleeping.clone(), 102), Some(1), at(102)).desired, 1);
    let off = model(&json!({"replicas": 0, "scaling": {"minReplicas": 0}}));
    assert_eq!(table.settle(&asked(off, 103), Some(1), at(103)).desired, 0, "it is switched off");
}

#[test]
fn held_requests_are_load() {
    let table = Table::new(true);
    let model = model(&sleepy(&json!({})));
    table.settle(&model, Some(0), at(0));
    let policy = Policy::new(&model.spec.scaling(), 8, true);
    let reading = crate::demand::gateways::GatewayReading { held: 25.0, ..Default::default() };
    let gateways = [GatewayAnswer { gateway: "g".to_owned(), ready: true, reading: Some(reading) }];
    let next = table.take_in(&key(&model), &policy, (&Round::Pods(Vec::new()), Some(&gateways)), at(2).now);
    assert!(matches!(next, Next::Change { from: 0, ref decision } if decision.to == 3), "{next:?}");
}

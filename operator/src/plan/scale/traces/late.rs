//! A load that is seen a minute late: at its peak first the quiet before it is seen, and then it again.

use super::*;

fn policy(spec: serde_json::Value) -> Policy {
    Policy::new(&serde_json::from_value(spec).unwrap(), 2, true)
}

#[test]
fn a_load_that_prometheus_tells_a_minute_late_keeps_its_replicas() {
    let policy = policy(serde_json::json!({"maxReplicas": 3, "stableSeconds": 6, "panicSeconds": 2,
                                           "downStabilizationSeconds": 2, "prometheus": {"query": "x"}}));
    let mut memory = Memory::new(Duration::ZERO);
    for n in 1..100 {
        let load = if (15..45).contains(&n) { 0.0 } else { 20.0 };
        let sample = Sample { elapsed: TICK, ready: 3, load: Some(load), ..Sample::default() };
        let decision = step(&policy, &mut memory, 3, sample, TICK * n);
        assert_eq!(decision.to, 3, "after {n} looks");
    }
}

/// All that pods and gateways say is late, by the windows that a model has without any of its own: the least one for the
/// fall, as replicas start at once.
#[test]
fn so_does_one_of_which_pods_and_gateways_tell_everything_a_minute_late() {
    let policy = policy(serde_json::json!({"maxReplicas": 3}));
    let mut memory = Memory::new(Duration::ZERO);
    let (mut ordered, mut ready, mut fell) = (1, 1, false);
    for n in 1..400 {
        let busy = (20..120).contains(&n) || (150..180).contains(&n);
        let (load, requests, computed) = if busy { (30.0, 4.0, 12.0) } else { (0.0, 0.0, 0.0) };
        let sample = Sample {
            elapsed: TICK,
            ready,
            load: Some(load),
            capacity: Some(2.0),
            arrived: Some(requests),
            refused: Some(0.0),
            completed: requests,
            computed_seconds: computed,
            ..Sample::default()
        };
        let decision = step(&policy, &mut memory, ordered, sample, TICK * n);
        (ordered, ready) = (decision.to, ordered);
        if (40..180).contains(&n) {
            assert_eq!(ordered, 3, "after {n} looks");
        }
        fell |= n >= 180 && ordered < 3;
    }
    assert!(memory.start_seconds() < 10.0, "the window is the least");
    assert!(fell, "a quiet that lasts is believed");
}

//! One event for each transition, none for a reconcile that changes nothing. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use vlm_crds::status::{
    ScalingDecision, VisionModelStatus,
    conditions::{METRICS_AVAILABLE, READY, SCALING_LIMITED},
    reasons::{self, Trouble},
};

use super::conditions::shorten;

/// Longest note that the API server takes.
const NOTE_MAX: usize = 1000;

/// The events of a change of status.
pub fn transitions(previous: &VisionModelStatus, next: &VisionModelStatus) -> Vec<Event> {
    let mut events = Vec::new();
    for now in &next.conditions {
        let before = previous.conditions.iter().find(|c| c.type_ == now.type_);
        let changed = match now.type_.as_str() {
            READY => before.is_none_or(|b| (&b.status, &b.reason) != (&now.status, &now.reason)),
            METRICS_AVAILABLE => now.status == "False" && before.is_none_or(|b| b.status != now.status),
            SCALING_LIMITED => now.status == "True" && before.is_none_or(|b| b.status != now.status),
            _ => false,
        };
        if changed {
            events.push(of_condition(now));
        }
    }
    events.extend(of_scaling(previous, next));
    events
}

fn of_condition(condition: &Condition) -> Event {
    let bad = Trouble::ALL.iter().any(|t| t.reason() == condition.reason)
        || [reasons::METRICS_STALE, reasons::REPLICAS_UNREADY].contains(&condition.reason.as_str());
    Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: condition.reason.clone(),
        note: Some(shorten(&condition.message, NOTE_MAX)),
        action: condition.type_.clone(),
        secondary: None,
    }
}

/// One event for each decision that the history has gained, oldest first.
fn of_scaling(previous: &VisionModelStatus, next: &VisionModelStatus) -> Vec<Event> {
    let history = |status: &VisionModelStatus| status.scaling.clone().map(|s| s.history).unwrap_or_default();
    let known = history(previous);
    let mut gained: Vec<_> = history(next).into_iter().take_while(|d| !known.iter().any(|k| same(k, d))).collect();
    gained.reverse();
    gained.iter().map(of_decision).collect()
}

/// The API server cuts times to seconds.
fn same(a: &ScalingDecision, b: &ScalingDecision) -> bool {
    let key = |d: &ScalingDecision| (d.from, d.to, d.reason.clone(), d.time.0.as_second());
    key(a) == key(b)
}

fn of_decision(decision: &ScalingDecision) -> Event {
    Event {
        type_: EventType::Normal,
        reason: decision.reason.clone(),
        note: Some(format!("from {} to {} replicas", decision.from, decision.to)),
        action: "Scale".to_owned(),
        secondary: None,
    }
}

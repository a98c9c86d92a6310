//! One event for each transition, none for a reconcile that changes nothing. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use vlm_crds::status::{
    VisionModelStatus,
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

fn of_scaling(previous: &VisionModelStatus, next: &VisionModelStatus) -> Option<Event> {
    let latest = next.scaling.as_ref()?.history.first()?;
    let before = previous.scaling.as_ref().and_then(|s| s.history.first());
    if before.is_some_and(|b| (b.from, b.to, &b.reason) == (latest.from, latest.to, &latest.reason) && b.time.0.as_second() == latest.time.0.as_second()) {
        return None;
    }
    Some(Event {
        type_: EventType::Normal,
        reason: latest.reason.clone(),
        note: Some(format!("from {} to {} replicas", latest.from, latest.to)),
        action: "Scale".to_owned(),
        secondary: None,
    })
}

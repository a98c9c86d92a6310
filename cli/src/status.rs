//! `status`: what a model is doing and what it waits for, in words. Tells only what the operator reports.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use vlm_crds::VisionModel;
use vlm_crds::status::conditions::{AVAILABLE, READY, RECONCILING, STALLED};
use vlm_crds::status::{Failure, VisionModelStatus};

use crate::cluster::Cluster;

/// Characters of one message.
const MESSAGE: usize = 2000;

/// The model of this name in words.
///
/// # Errors
/// When there is none, or the API server cannot be asked.
pub async fn run(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    Ok(in_words(&cluster.model(name).await?, Timestamp::now()))
}

/// What a model is doing, and what it waits for.
pub fn in_words(model: &VisionModel, now: Timestamp) -> String {
    let status = model.status.clone().unwrap_or_default();
    let seen = status.observed_generation.unwrap_or(-1);
    let mut rows = vec![("model", model.spec.model.uri.clone())];
    let headline = if seen < model.metadata.generation.unwrap_or_default() {
        rows.push(("waits for", unseen(seen, &status)));
        "not looked at yet"
    } else {
        judged(&status, now, &mut rows)
    };
    if let Some(replicas) = &status.replicas {
        let rest = replicas.current.saturating_sub(replicas.ready).max(0);
        let starting = if rest > 0 { format!(", {rest} not answering yet") } else { String::new() };
        rows.push(("replicas", format!("{} of {} ready{starting}", replicas.ready, replicas.desired)));
    }
    if let Some(gpu) = model.spec.gpu_type() {
        let cost = status.cost.as_ref().map(|cost| format!(", {} USD an hour in all", cost.per_hour));
        rows.push(("gpu", format!("{gpu} for each replica{}", cost.unwrap_or_default())));
    }
    if let Some(scaling) = &status.scaling {
        rows.push((
            "scaling",
            scaling.history.first().map_or_else(
                || scaling.reason.clone(),
                |last| format!("{} to {}, {}, {}", last.from, last.to, last.reason, since(now, last.time.0)),
            ),
        ));
    }
    rows.extend(status.failures.iter().map(|failure| ("failure", failed(failure))));
    rows.extend(status.endpoint.clone().map(|endpoint| ("endpoint", endpoint)));
    let mut text = format!("{} in {}: {headline}\n", model.name_any(), model.namespace().unwrap_or_default());
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    }
    text
}

/// The operator has not seen what was applied last.
fn unseen(seen: i64, status: &VisionModelStatus) -> String {
    if seen < 0 || status.conditions.is_empty() {
        "the operator, which has not looked at it: is one running that watches this namespace?".to_owned()
    } else {
        "the operator, which has not looked at the latest change yet".to_owned()
    }
}

/// What the conditions say.
fn judged(status: &VisionModelStatus, now: Timestamp, rows: &mut Vec<(&'static str, String)>) -> &'static str {
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let holds = |kind: &str| condition(kind).filter(|condition| condition.status == "True");
    let ready = condition(READY);
    let said = |condition: &Condition| {
        let message: String = condition.message.chars().take(MESSAGE).collect();
        format!("{} ({}, {})", message.trim_end(), condition.reason, since(now, condition.last_transition_time.0))
    };
    let headline = match ready {
        Some(ready) if ready.status == "True" => {
            if let Some(work) = holds(RECONCILING) {
                rows.push(("at work on", said(work)));
                "ready, and at work"
            } else {
                rows.push(("because", said(ready)));
                "ready"
            }
        }
        Some(ready) => {
            let stalled = holds(STALLED).is_some();
            rows.push((if stalled { "needs you" } else { "waits for" }, said(ready)));
            match (stalled, holds(AVAILABLE).is_some()) {
                (true, false) => "stopped: nothing more happens by itself",
                (true, true) => "stopped, but still answering",
                (false, true) => "not ready, but answering",
                (false, false) => "not ready",
            }
        }
        None => {
            rows.push(("waits for", "the operator's first report".to_owned()));
            "not ready"
        }
    };
    let known = [READY, RECONCILING, STALLED];
    for other in status.conditions.iter().filter(|other| !known.contains(&other.type_.as_str())) {
        let bad = (other.status == "False") != (other.type_ == "ScalingLimited");
        if bad && ready.is_none_or(|ready| ready.message != other.message) {
            rows.push(("also", format!("{} is {}: {}", other.type_, other.status, said(other))));
        }
    }
    headline
}

fn failed(failure: &Failure) -> String {
    let place = [
        failure.pod.as_ref().map(|pod| format!("pod {pod}")),
        failure.container.as_ref().map(|container| format!("container {container}")),
        failure.exit_code.map(|code| format!("exit code {code}")),
    ];
    let place: Vec<_> = place.into_iter().flatten().collect();
    let message: String = failure.message.chars().take(MESSAGE).collect();
    if place.is_empty() {
        format!("{}: {message}", failure.reason)
    } else {
        format!("{} ({}): {message}", failure.reason, place.join(", "))
    }
}

/// How long ago, in its largest unit.
fn since(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests;

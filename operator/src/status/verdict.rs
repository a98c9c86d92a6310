//! Whether a model is ready, still being worked on, or stalled, and why. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DeploymentCondition;
use vlm_crds::status::{
    conditions::READY,
    reasons::{self, Stalls, Trouble},
};

use super::{Counts, Facts, Remembered, failures::Problem};

/// How long fewer replicas than wanted may answer before a model that was ready no longer is.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub ready: bool,
    pub reason: &'static str,
    pub message: String,
    /// Nothing is left to do.
    pub settled: bool,
    pub stalled: bool,
    /// What is left to do though the model is ready.
    pub work: &'static str,
    pub work_message: String,
}

pub(super) fn judge(
    facts: &Facts<'_>,
    counts: &Counts,
    worst: Option<&Problem>,
    remembered: &mut Remembered,
) -> (Verdict, Option<Duration>) {
    let generation = facts.model.metadata.generation.unwrap_or_default();
    let was_ready = was_ready(facts, generation, remembered);
    if counts.ready >= counts.desired {
        remembered.short_since = None;
    }
    if let Ok((_, template)) = facts.applied {
        if counts.are_complete() && counts.desired > 0 {
            remembered.ready_template = Some(template.to_owned());
        }
        if counts.are_complete() || counts.desired == 0 {
            return (complete(facts, counts), None);
        }
    }
    let grace = if was_ready { grace_left(facts, counts, remembered) } else { None };
    let enough = was_ready && counts.ready >= counts.desired;
    if facts.applied.is_ok() && (enough || grace.is_some()) {
        return (working(counts, worst), grace);
    }
    let (stalled, look_again) = stalls(facts, counts, worst);
    let deadline = facts.model.spec.progress_deadline_seconds();
    (missing(facts, counts, worst, was_ready, stalled.then_some(deadline)), look_again)
}

/// This template was ready before; after a restart of the operator, as far as the status tells.
fn was_ready(facts: &Facts<'_>, generation: i64, remembered: &Remembered) -> bool {
    facts.applied.is_ok_and(|(_, template)| remembered.ready_template.as_deref() == Some(template))
        || facts
            .previous
            .conditions
            .iter()
            .any(|c| c.type_ == READY && c.status == "True" && c.observed_generation == Some(generation))
}

/// What is left of the time in which too few replicas may answer. None when no replica answers:
/// nobody is served then.
fn grace_left(facts: &Facts<'_>, counts: &Counts, remembered: &mut Remembered) -> Option<Duration> {
    let wanted_before = facts.previous.replicas.as_ref().map_or(0, |r| r.desired);
    if counts.desired > wanted_before {
        // Replicas that were just ordered need time to start.
        remembered.short_since = Some(facts.now);
    }
    if counts.ready == 0 || counts.ready >= counts.desired {
        return None;
    }
    let since = *remembered.short_since.get_or_insert(facts.now);
    Duration::try_from(GRACE - facts.now.duration_since(since)).ok().filter(|left| !left.is_zero())
}

fn complete(facts: &Facts<'_>, counts: &Counts) -> Verdict {
    let (reason, message) = if counts.desired == 0 && facts.model.spec.replicas.is_none() {
        (reasons::SCALED_TO_ZERO, "nobody has asked for a while: the next request to the gateway wakes it".to_owned())
    } else if counts.desired == 0 {
        (reasons::SWITCHED_OFF, "spec.replicas is 0: the model is switched off".to_owned())
    } else {
        (reasons::SERVING, format!("{} of {} replicas answer", counts.ready, counts.desired))
    };
    Verdict {
        ready: true,
        reason,
        message,
        settled: counts.seen && counts.current == counts.desired,
        stalled: false,
        work: reasons::SCALING,
        work_message: format!("{} replicas are to become {}", counts.current, counts.desired),
    }
}

/// Ready, with replicas on their way.
fn working(counts: &Counts, worst: Option<&Problem>) -> Verdict {
    let (work, work_message) = match worst {
        Some(problem) => (problem.trouble.reason(), problem.describe()),
        None => (reasons::SCALING, format!("{} of {} replicas answer", counts.ready, counts.desired)),
    };
    Verdict {
        ready: true,
        reason: reasons::SERVING,
        message: format!("{} of {} replicas answer", counts.ready, counts.desired),
        settled: false,
        stalled: false,
        work,
        work_message,
    }
}

/// Not ready; `stalled` has the deadline when only a person can go on.
fn missing(
    facts: &Facts<'_>,
    counts: &Counts,
    worst: Option<&Problem>,
    was_ready: bool,
    stalled: Option<i32>,
) -> Verdict {
    let progress = format!("{} of {} replicas answer", counts.ready, counts.desired);
    let (reason, message) = match worst {
        Some(problem) => (problem.trouble.reason(), problem.describe()),
        None if facts.applied.is_err() => (
            reasons::INSPECTING,
            "the checkpoint is looked at, to tell whether it fits before pods are made".to_owned(),
        ),
        None => match stalled {
            Some(deadline) => (
                Trouble::RolloutStuck.reason(),
                format!("no progress for the {deadline} seconds of rollout.progressDeadlineSeconds: {progress}"),
            ),
            None if was_ready => (reasons::REPLICAS_UNREADY, progress),
            None => (reasons::DEPLOYING, format!("{progress}, {} of this generation", counts.updated)),
        },
    };
    Verdict {
        ready: false,
        reason,
        work_message: message.clone(),
        message,
        settled: false,
        stalled: stalled.is_some(),
        work: reason,
    }
}

/// Whether only a person can go on, and else when that may change by time alone.
fn stalls(facts: &Facts<'_>, counts: &Counts, worst: Option<&Problem>) -> (bool, Option<Duration>) {
    let overdue = match worst.map(|p| p.trouble.stalls()) {
        Some(Stalls::AtOnce) => return (true, None),
        Some(Stalls::Never) => return (false, None),
        Some(Stalls::AfterDeadline) => true,
        None => false,
    };
    let Ok((deployment, _)) = facts.applied else {
        // There is no rollout whose time Kubernetes would keep.
        let left = deadline_left(facts, facts.now).filter(|_| overdue);
        return (overdue && left.is_none(), left);
    };
    if !counts.seen {
        // What the Deployment says is about its former self: a new spec starts with the full deadline.
        return (false, None);
    }
    let progressing: Option<&DeploymentCondition> = deployment
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .and_then(|c| c.iter().find(|c| c.type_ == "Progressing"));
    match progressing.and_then(|c| c.reason.as_deref()) {
        Some("ProgressDeadlineExceeded") => (true, None),
        // The rollout itself ended well, so Kubernetes no longer keeps its time: pods broke later.
        Some("NewReplicaSetAvailable") if overdue => {
            let left = deadline_left(facts, facts.now);
            (left.is_none(), left)
        }
        _ => (false, None),
    }
}

fn deadline_left(facts: &Facts<'_>, now: Timestamp) -> Option<Duration> {
    let deadline = SignedDuration::from_secs(i64::from(facts.model.spec.progress_deadline_seconds()));
    let since = facts
        .previous
        .conditions
        .iter()
        .find(|c| c.type_ == READY && c.status == "False")
        .map_or(now, |c| c.last_transition_time.0);
    Duration::try_from(deadline - now.duration_since(since)).ok().filter(|left| !left.is_zero())
}

//! What the operator reports: from facts to a status. Pure, but for [`publish`].
//!
//! Follows kstatus: `Reconciling` and `Stalled` exist to be True, `Ready` says that this generation
//! is rolled out and answers, and nothing here is copied from a child's generation.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use vlm_catalog::{inspection::Inspection, quantization::QuantizationChoice};
use vlm_crds::{
    VisionModel,
    status::{
        Replicas, Resolved, ScalingStatus, VisionModelStatus,
        conditions::{AVAILABLE, FITS_GPU, METRICS_AVAILABLE, READY, RECONCILING, SCALING_LIMITED, STALLED},
        reasons,
    },
};

use crate::{
    autoscaler::table::View,
    build::labels,
    demand::track::Health,
    observe::Observed,
    plan::{
        Settings,
        fit::{Fitted, is_judged, unjudged_quantization},
        placement::Gpu,
    },
};

mod conditions;
mod cost;
pub mod events;
pub mod failures;
mod placement;
mod publish;
#[cfg(test)]
mod tests;
mod verdict;

pub use failures::Problem;
pub use publish::{PublishError, publish};

use conditions::Conditions;
use verdict::Verdict;

/// What is known when a report is made.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The object.
    pub model: &'a VisionModel,
    /// Its status so far.
    pub previous: &'a VisionModelStatus,
    /// What there is of it.
    pub observed: &'a Observed,
    /// The Deployment as it is now, and the fingerprint of its template; or why there is none: a problem, or nothing
    /// but that the checkpoint is still being looked at.
    pub applied: Result<(&'a Deployment, &'a str), Option<&'a Problem>>,
    /// What is known of the checkpoint.
    pub inspection: Option<&'a Inspection>,
    /// How a replica fits its memory.
    pub fitted: Option<&'a Fitted>,
    /// The GPU of each replica; `None` for processor cores, and for a type that is not known.
    pub gpu: Option<&'a Gpu>,
    /// How many replicas are wanted, and why.
    pub scale: &'a View,
    /// The names that it has lost at the gateway to older models; `None` while nobody has looked.
    pub lost_names: Option<&'a [String]>,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// The time.
    pub now: Timestamp,
}

/// What must outlast a report and has no place in the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// Since when fewer replicas answer than are wanted.
    pub short_since: Option<Timestamp>,
    /// Fingerprint of the last template that was ready, so that a change of scale is no rollout.
    pub ready_template: Option<String>,
}

/// A status, and when to make the next one though nothing has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The status.
    pub status: VisionModelStatus,
    /// When time alone will change it.
    pub look_again: Option<Duration>,
}

/// Makes the report.
pub fn report(facts: &Facts<'_>, remembered: &mut Remembered) -> Report {
    let generation = facts.model.metadata.generation.unwrap_or_default();
    let counts = Counts::of(facts);
    let found = failures::find(facts, &counts);
    let (verdict, look_again) = verdict::judge(facts, &counts, found.first(), remembered);
    let mut conditions = Conditions::new(&facts.previous.conditions, generation, facts.now);
    state(&mut conditions, &verdict);
    state_availability(&mut conditions, facts, &counts);
    if let Some(fitted) = facts.fitted {
        let problem = fitted.problem();
        let reason = problem.as_ref().map_or(reasons::FITS, |problem| problem.trouble.reason());
        conditions.set(FITS_GPU, problem.is_none(), reason, &fitted.in_words());
    }
    state_scaling(&mut conditions, facts.scale);
    let (namespace, name) = (facts.model.namespace().unwrap_or_default(), facts.model.name_any());
    let status = VisionModelStatus {
        observed_generation: Some(generation),
        resolved: Some(resolved(facts)),
        fit: facts.fitted.map(Fitted::to_status),
        checkpoint: None,
        cost: facts.gpu.filter(|_| facts.applied.is_ok()).and_then(|gpu| cost::per_hour(&gpu.kind, counts.desired)),
        replicas: Some(Replicas {
            desired: counts.desired,
            current: counts.current,
            ready: counts.ready,
            updated: counts.updated,
            summary: format!("{}/{}", counts.ready, counts.desired),
        }),
        selector: Some(format!("{}={name}", labels::MODEL)),
        endpoint: Some(format!("http://{name}.{namespace}.svc/v1")),
        wake: None,
        scaling: Some(ScalingStatus { reason: facts.scale.reason.clone(), history: facts.scale.history.clone() }),
        failures: found.iter().take(10).map(Problem::to_failure).collect(),
        conditions: conditions.finish(),
    };
    Report { status, look_again }
}

/// What the defaults came to.
fn resolved(facts: &Facts<'_>) -> Resolved {
    let spec = &facts.model.spec;
    let mut resolved = Resolved {
        architecture: facts.inspection.map(|told| told.config().family.name().to_owned()),
        quantization: Some(unjudged_quantization(spec).to_string()),
        max_tokens: spec.context.as_ref().and_then(|context| context.max_tokens),
        max_concurrency: Some(spec.max_concurrency()),
        image: facts.settings.image(spec).to_owned(),
        ..Resolved::default()
    };
    match facts.fitted {
        Some(fitted) => fitted.note(&mut resolved),
        // Not known yet.
        None if is_judged(spec) && spec.quantization() == QuantizationChoice::Auto => resolved.quantization = None,
        None => {}
    }
    resolved
}

/// Numbers of replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    desired: i32,
    current: i32,
    ready: i32,
    updated: i32,
    /// The Deployment's controller has seen the newest Deployment.
    seen: bool,
}

impl Counts {
    fn of(facts: &Facts<'_>) -> Self {
        let deployment = match facts.applied {
            Ok((deployment, _)) => Some(deployment),
            Err(_) => facts.observed.deployment.as_deref(),
        };
        let desired = facts.scale.desired;
        let Some(deployment) = deployment else { return Self { desired, ..Self::default() } };
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            desired,
            current: status.replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            seen: status.observed_generation >= deployment.metadata.generation,
        }
    }

    /// As many replicas answer as are wanted, all of them of the newest template.
    fn are_complete(&self) -> bool {
        let Self { desired, current, ready, updated, seen } = *self;
        seen && ready >= desired && updated >= desired && current == updated
    }
}

fn state(conditions: &mut Conditions<'_>, verdict: &Verdict) {
    conditions.set(READY, verdict.ready, verdict.reason, &verdict.message);
    let busy = !verdict.settled && !verdict.stalled;
    let work = if verdict.ready { verdict.work } else { verdict.reason };
    if busy {
        conditions.set(RECONCILING, true, work, &verdict.work_message);
    } else {
        conditions.set(RECONCILING, false, reasons::SETTLED, "");
    }
    if verdict.stalled {
        conditions.set(STALLED, true, verdict.reason, &verdict.message);
    } else {
        conditions.set(STALLED, false, reasons::SETTLED, "");
    }
}

fn state_availability(conditions: &mut Conditions<'_>, facts: &Facts<'_>, counts: &Counts) {
    let asleep = counts.desired == 0 && facts.model.spec.replicas.is_none();
    if counts.ready == 0 && !asleep {
        let (reason, message) = match counts.desired {
            0 => (reasons::SWITCHED_OFF, "spec.replicas is 0"),
            _ => (reasons::NO_REPLICA_READY, "no replica answers"),
        };
        conditions.set(AVAILABLE, false, reason, message);
        return;
    }
    let said = facts.previous.conditions.iter().find(|c| c.type_ == AVAILABLE);
    let kept = said.filter(|said| facts.lost_names.is_none() && said.reason == reasons::ALIAS_CONFLICT);
    if let Some(said) = kept {
        conditions.set(AVAILABLE, true, reasons::ALIAS_CONFLICT, &said.message);
    } else if let Some(lost) = facts.lost_names.filter(|lost| !lost.is_empty()) {
        // Not whose they are: that may be nobody's to know here.
        let (namespace, name) = (facts.model.namespace().unwrap_or_default(), facts.model.name_any());
        let message =
            format!("older models have the name {}; the gateway finds this one as {namespace}/{name}", lost.join(", "));
        conditions.set(AVAILABLE, true, reasons::ALIAS_CONFLICT, &message);
    } else if counts.ready > 0 {
        conditions.set(AVAILABLE, true, reasons::SERVING, "");
    } else {
        conditions.set(AVAILABLE, true, reasons::SCALED_TO_ZERO, "a request to the gateway wakes it");
    }
}

fn state_scaling(conditions: &mut Conditions<'_>, scale: &View) {
    let Some(auto) = &scale.auto else { return };
    let Some(seen) = &auto.seen else {
        // Nothing was read since the operator started: what was said before still stands.
        conditions.keep(METRICS_AVAILABLE);
        conditions.keep(SCALING_LIMITED);
        return;
    };
    match &seen.health {
        Health::Pending => {
            conditions.set_unknown(METRICS_AVAILABLE, reasons::METRICS_PENDING, "no replica to read yet");
        }
        Health::Fresh => conditions.set(METRICS_AVAILABLE, true, reasons::METRICS_FRESH, ""),
        Health::Stale(who) => conditions.set(
            METRICS_AVAILABLE,
            false,
            reasons::METRICS_STALE,
            &format!("no answer from {}: no replica is removed until there is one", who.join(", ")),
        ),
    }
    if seen.limited {
        let message = format!("the load asks for more than the {} replicas of scaling.maxReplicas", auto.max);
        conditions.set(SCALING_LIMITED, true, reasons::MAX_REPLICAS_REACHED, &message);
    } else {
        conditions.set(SCALING_LIMITED, false, reasons::WITHIN_LIMITS, "");
    }
}

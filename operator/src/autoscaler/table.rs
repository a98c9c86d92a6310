//! The number of replicas of each model, in memory: the autoscaler writes it, the reconcile reads it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use vlm_crds::{
    VisionModel,
    scaling::Verify,
    status::{ScalingDecision, ScalingInputs, reasons::decision},
};

use crate::{
    demand::track::{GatewayAnswer, Health, PodAnswer, QueryRound, Tracker},
    metrics::Source,
    plan::scale::{self, Decision, Inputs, Memory, Policy},
};

/// Decisions that are kept.
const HISTORY: usize = 10;

/// Namespace and name of a model.
pub type Key = (String, String);

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    entries: Mutex<HashMap<Key, Entry>>,
    /// There is a gateway, so that a model may go without replicas.
    gateway: bool,
}

#[derive(Debug)]
struct Entry {
    uid: Option<String>,
    desired: i32,
    reason: String,
    history: Vec<ScalingDecision>,
    auto: Option<Auto>,
}

/// What an entry has while the autoscaler is on.
#[derive(Debug)]
struct Auto {
    /// Where the last tick read the load.
    source: Option<Source>,
    seen: Option<Seen>,
    memory: Memory,
    tracker: Tracker,
}

/// What a report needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Replicas wanted.
    pub desired: i32,
    /// Why.
    pub reason: String,
    /// The latest decisions, newest first.
    pub history: Vec<ScalingDecision>,
    /// Of the autoscaler, while it is on.
    pub auto: Option<AutoView>,
}

/// What a report needs to know of the autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoView {
    /// How many are allowed.
    pub max: i32,
    /// What the last tick saw; `None` before the first.
    pub seen: Option<Seen>,
}

/// What a tick saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The load asks for more than allowed.
    pub limited: bool,
    /// Whether the load can be seen.
    pub health: Health,
}

/// What was read of a model in one tick.
#[derive(Clone, Debug)]
pub enum Round {
    /// The pods that run, and what they said.
    Pods(Vec<PodAnswer>),
    /// What Prometheus said, and the pods beside it.
    Prometheus(QueryRound),
}

impl Round {
    /// Where it was read.
    pub fn source(&self) -> Source {
        match self {
            Self::Pods(_) => Source::Pods,
            Self::Prometheus(_) => Source::Prometheus,
        }
    }
}

/// What follows from a tick.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing that anybody needs to know.
    Nothing,
    /// Something that the status shows.
    Report,
    /// Another number of replicas, to be confirmed by [`Table::commit`].
    Change {
        /// Replicas until now.
        from: i32,
        /// What was decided.
        decision: Box<Decision>,
    },
}

/// The time, as a clock that never jumps and as a date.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the process started.
    pub now: Duration,
    /// The date.
    pub time: Timestamp,
}

impl Table {
    /// An empty table, with or without a gateway.
    pub fn new(gateway: bool) -> Self {
        Self { gateway, ..Self::default() }
    }

    /// How many replicas a model has from now on. The first time, that is what its Deployment has,
    /// so that a restart of the operator changes nothing; without one it is the least allowed, but one where
    /// it is to be seen that the manifest works. A model without any gets one when a gateway has asked for it.
    pub fn settle(&self, model: &VisionModel, deployed: Option<i32>, moment: Moment) -> View {
        let scaling = model.spec.scaling();
        let (min, max) = (scale::least(&scaling, self.gateway), scaling.max());
        let first = if scaling.zero().verify == Some(Verify::Never) { min } else { min.max(1) };
        let mut entries = self.lock();
        let entry = entries.entry(key(model)).or_insert_with(|| Entry::new(model, deployed, first));
        if entry.uid != model.metadata.uid {
            *entry = Entry::new(model, deployed, first);
        }
        if let Some(fixed) = model.spec.replicas {
            entry.auto = None;
            entry.desired = fixed.max(0);
            decision::FIXED.clone_into(&mut entry.reason);
        } else {
            if entry.auto.is_none() {
                entry.auto = Some(Auto::new(moment.now));
                if entry.reason == decision::FIXED {
                    decision::TAKEN_OVER.clone_into(&mut entry.reason);
                }
            }
            let within = entry.desired.clamp(min, max);
            if within != entry.desired {
                entry.record(within, decision::LIMITS_CHANGED, None, moment.time);
            }
            if entry.desired == 0 && entry.is_asked_for(model) {
                entry.record(1, decision::WOKEN, None, moment.time);
            }
        }
        entry.view(max)
    }

    /// Takes in what was read in a tick. A change is only proposed. What one source has taught says
    /// nothing about the other's numbers (Prometheus knows no arrivals), so a new source starts anew.
    /// `gateways` is what the gateways answered, where there are to be any.
    pub fn take_in(
        &self,
        key: &Key,
        policy: &Policy,
        (round, gateways): (&Round, Option<&[GatewayAnswer]>),
        now: Duration,
    ) -> Next {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return Next::Nothing };
        let Some(auto) = &mut entry.auto else { return Next::Nothing };
        if auto.source.replace(round.source()).is_some_and(|before| before != round.source()) {
            *auto = Auto { source: Some(round.source()), ..Auto::new(now) };
        }
        let (mut sample, mut health) = match round {
            Round::Pods(pods) => auto.tracker.fold(pods, now),
            Round::Prometheus(query) => auto.tracker.fold_query(query, now),
        };
        if let Some(gateways) = gateways {
            auto.tracker.add_gateways(gateways, (&mut sample, &mut health), now);
        }
        let decision = scale::step(policy, &mut auto.memory, entry.desired, sample, now);
        let seen = Some(Seen { limited: decision.limited, health });
        let shown = seen != auto.seen;
        auto.seen = seen;
        if decision.to != entry.desired {
            Next::Change { from: entry.desired, decision: Box::new(decision) }
        } else if shown {
            Next::Report
        } else {
            Next::Nothing
        }
    }

    /// Makes a proposed change, unless the number has changed meanwhile. Says whether it did.
    pub fn commit(&self, key: &Key, from: i32, decision: &Decision, source: Source, time: Timestamp) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key).filter(|e| e.auto.is_some() && e.desired == from) else {
            return false;
        };
        let inputs = describe(&decision.inputs, source);
        entry.record(decision.to, decision.reason, inputs, time);
        true
    }

    /// Requests in flight on a pod, as far as known.
    pub fn in_flight(&self, key: &Key, pod: &str) -> Option<f64> {
        self.lock().get(key)?.auto.as_ref()?.tracker.in_flight(pod)
    }

    /// Forgets models that are gone.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(namespace, name), _| keep(namespace, name));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a model.
pub fn key(model: &VisionModel) -> Key {
    (model.namespace().unwrap_or_default(), model.name_any())
}

impl Entry {
    fn new(model: &VisionModel, deployed: Option<i32>, min: i32) -> Self {
        let before = model.status.as_ref().and_then(|s| s.scaling.clone());
        let (reason, history) = match (deployed, before) {
            (Some(_), Some(before)) => (before.reason, before.history),
            (Some(_), None) => (decision::TAKEN_OVER.to_owned(), Vec::new()),
            (None, before) => (decision::INITIAL.to_owned(), before.map(|b| b.history).unwrap_or_default()),
        };
        Self { uid: model.metadata.uid.clone(), desired: deployed.unwrap_or(min), reason, history, auto: None }
    }

    fn record(&mut self, to: i32, reason: &str, inputs: Option<ScalingInputs>, time: Timestamp) {
        let decision = ScalingDecision { time: Time(time), from: self.desired, to, reason: reason.to_owned(), inputs };
        self.history.insert(0, decision);
        self.history.truncate(HISTORY);
        self.desired = to;
        reason.clone_into(&mut self.reason);
    }

    /// A gateway has asked for the model since it has no replicas. Decisions are kept in whole seconds.
    fn is_asked_for(&self, model: &VisionModel) -> bool {
        let asked = model.status.as_ref().and_then(|status| status.wake.as_ref()).map(|wake| wake.requested_at.0);
        let since = self.history.first().filter(|decision| decision.to == 0).map(|decision| decision.time.0);
        asked.is_some_and(|asked| since.is_none_or(|since| asked >= since))
    }

    fn view(&self, max: i32) -> View {
        View {
            desired: self.desired,
            reason: self.reason.clone(),
            history: self.history.clone(),
            auto: self.auto.as_ref().map(|a| AutoView { max, seen: a.seen.clone() }),
        }
    }
}

impl Auto {
    fn new(now: Duration) -> Self {
        Self { source: None, seen: None, memory: Memory::new(now), tracker: Tracker::default() }
    }
}

fn describe(inputs: &Inputs, source: Source) -> Option<ScalingInputs> {
    let rate = |r: f64| format!("{r:.2}");
    (!inputs.window.is_zero()).then(|| ScalingInputs {
        source: source.name().to_owned(),
        load: format!("{:.1}", inputs.load),
        window_seconds: inputs.window.as_secs() as i32,
        per_replica: inputs.per_replica.round() as i32,
        ready: inputs.ready,
        refused: inputs.refused.map(|r| r.round() as i32),
        arrivals_per_second: inputs.arrivals.map(rate),
        completions_per_second: inputs.completions.map(rate),
    })
}

#[cfg(test)]
mod tests;

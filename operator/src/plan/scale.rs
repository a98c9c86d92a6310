//! How many replicas: from samples of the load to a number, with time as a parameter.
//!
//! Two windows, as in Knative's autoscaler: a stable one for calm times and a short one that
//! notices a surge. What waits and runs asks for replicas, and so does what arrives (`need`). Scaling up needs one
//! good reason; scaling down needs every doubt gone.

use std::time::Duration;

use vlm_crds::{scaling::Scaling, status::reasons::decision};

use need::Need;

mod memory;
mod need;
#[cfg(test)]
mod traces;

pub use memory::Memory;

/// How old what a Prometheus server says may be: it is scraped, and may get its series from elsewhere. Replicas stay for
/// as long at least, or the quiet before a load, seen late, would take those away that carry it.
const LATE: Duration = Duration::from_secs(60);

/// Bounds, target and windows: `spec.scaling` with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Fewest replicas.
    pub min: i32,
    /// Most replicas.
    pub max: i32,
    /// Requests that may wait for each replica.
    pub queue_depth: f64,
    /// Requests that each replica is to compute; `None`: as many as it can.
    pub concurrency: Option<f64>,
    /// What a replica can compute when none has said it.
    pub assumed_capacity: f64,
    /// The calm window.
    pub stable: Duration,
    /// The short window.
    pub panic: Duration,
    /// How long the load must have been lower before replicas go; `None`: by the time that a replica takes to start.
    pub down: Option<Duration>,
    /// They stay for as long at least: what is seen of the load may be as old, and is averaged over the calm window.
    pub late: Duration,
    /// How long nobody may have asked before the last replica goes.
    pub idle: Duration,
}

impl Policy {
    /// The policy of a spec, with what a replica computes by default. Without a gateway, which would wake it, a model
    /// keeps one replica.
    pub fn new(scaling: &Scaling, assumed_capacity: i32, gateway: bool) -> Self {
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        let stable = seconds(scaling.stable_seconds());
        Self {
            min: least(scaling, gateway),
            max: scaling.max(),
            queue_depth: f64::from(scaling.queue_depth()),
            concurrency: scaling.concurrency().map(f64::from),
            assumed_capacity: f64::from(assumed_capacity),
            stable,
            panic: seconds(scaling.panic_seconds().min(scaling.stable_seconds())),
            down: scaling.down_stabilization_seconds().map(seconds),
            late: if scaling.prometheus.is_some() { LATE + stable } else { Duration::ZERO },
            idle: seconds(scaling.zero().idle_seconds()),
        }
    }
}

/// Fewest replicas of a spec, with or without a gateway.
pub fn least(scaling: &Scaling, gateway: bool) -> i32 {
    if gateway { scaling.min() } else { scaling.min().max(1) }
}

/// What was seen in one tick, over all replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Time since the tick before.
    pub elapsed: Duration,
    /// Replicas that count as ready.
    pub ready: i32,
    /// Running and waiting requests, and those that gateways hold; `None` when unknown, which is not the same as 0.
    pub load: Option<f64>,
    /// Requests that a replica can compute, on average.
    pub capacity: Option<f64>,
    /// Requests that arrived since the tick before, refused ones included.
    pub arrived: Option<f64>,
    /// Requests refused since the tick before.
    pub refused: Option<f64>,
    /// Requests completed by replicas while others waited there.
    pub finished: f64,
    /// How long those replicas were watched, in seconds, added up.
    pub busy_seconds: f64,
    /// Requests completed by any replica.
    pub completed: f64,
    /// How long requests were computed, in seconds, added up over all of them.
    pub computed_seconds: f64,
    /// A source of the load is silent: no replica may go.
    pub silent: bool,
    /// Somebody may have asked and not been seen: the last replica may not go.
    pub unheard: bool,
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas to have from now on.
    pub to: i32,
    /// One of [`decision`].
    pub reason: &'static str,
    /// The load asks for more than the most allowed.
    pub limited: bool,
    /// What it rests on.
    pub inputs: Inputs,
}

/// What a decision rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Mean number of running and waiting requests.
    pub load: f64,
    /// Over which window.
    pub window: Duration,
    /// Requests that a replica is to carry, waiting ones included.
    pub per_replica: f64,
    /// Ready replicas.
    pub ready: i32,
    /// Requests refused within the window.
    pub refused: Option<f64>,
    /// Arrivals per second.
    pub arrivals: Option<f64>,
    /// Completions per second of a busy replica.
    pub completions: Option<f64>,
}

/// The number of replicas that one window asks for.
#[derive(Clone, Debug, PartialEq)]
struct Recommendation {
    replicas: i32,
    /// Refusals, not the load, made it that high.
    refused: bool,
    /// What arrives in the window is more than chance makes of what arrived before.
    surges: bool,
    inputs: Inputs,
}

/// Takes in a sample and decides. `ordered` is the number of replicas that was last decided.
///
/// # Guarantees
/// - The result is within `min..=max`.
/// - It is below `ordered` only when the load is known from every source, no surge is on, a replica
///   was ready before, a stable window has passed since `memory` was made, and every recommendation
///   of the last `policy.down` was lower. The one exception is a lowered `max`.
/// - It is 0 only when nobody has asked for `policy.idle`; from 0 it rises with the first request that is held.
/// - Once the completion rate is known, load alone never asks for more than one replica above the
///   ready ones or 1.5 times what the arrivals need, whichever is greater.
pub fn step(policy: &Policy, memory: &mut Memory, ordered: i32, sample: Sample, now: Duration) -> Decision {
    let certain = sample.load.is_some() && !sample.silent;
    memory.note_ordered(ordered, &sample, now);
    if memory.greatest_wish().is_none() {
        memory.remember_wish(policy, ordered, now);
    }
    memory.take_in(policy, sample, now);
    let calm = recommend(policy, memory, policy.stable, now);
    let surge = recommend(policy, memory, policy.panic, now);
    let (Some(calm), Some(surge)) = (calm, surge) else {
        memory.remember_wish(policy, ordered, now);
        return decide(policy, ordered, ordered, ordered, decision::LOAD_ROSE, Inputs::default());
    };
    if surge.replicas >= 2 * surge.inputs.ready.max(1) {
        memory.start_panic(now + policy.stable);
    }
    let panicking = memory.panics(now);
    let lead = if (panicking || surge.surges) && surge.replicas >= calm.replicas { &surge } else { &calm };
    let wish = lead.replicas;
    memory.remember_wish(policy, if certain { wish } else { wish.max(ordered) }, now);
    let greatest = memory.greatest_wish().unwrap_or(wish);
    let may_shrink = certain && !panicking && memory.settled(policy, now);
    let policy = &Policy { min: policy.min.max(i32::from(ordered > 0 && !memory.idle(policy, now))), ..policy.clone() };
    let wanted = if wish > ordered {
        wish
    } else if may_shrink {
        greatest.clamp(wish, ordered)
    } else {
        ordered
    };
    let reason = if wanted < ordered && wanted.max(policy.min) == 0 {
        decision::IDLE
    } else if ordered == 0 {
        decision::WOKEN
    } else if wanted < ordered {
        decision::LOAD_FELL
    } else if lead.refused {
        decision::REQUESTS_REFUSED
    } else if panicking {
        decision::LOAD_SURGED
    } else {
        decision::LOAD_ROSE
    };
    decide(policy, ordered, wanted, wish.max(greatest), reason, lead.inputs.clone())
}

fn decide(policy: &Policy, ordered: i32, wanted: i32, wish: i32, reason: &'static str, inputs: Inputs) -> Decision {
    let to = wanted.clamp(policy.min, policy.max);
    let by_limits = wanted == ordered && to != ordered;
    Decision {
        to,
        reason: if by_limits { decision::LIMITS_CHANGED } else { reason },
        limited: wish > policy.max,
        inputs,
    }
}

/// What the samples of one window ask for; `None` while the load is unknown.
fn recommend(policy: &Policy, memory: &Memory, window: Duration, now: Duration) -> Option<Recommendation> {
    let seen = memory.look_back(window, now)?;
    let capacity = memory.capacity().unwrap_or(policy.assumed_capacity).max(1.0);
    let places = policy.concurrency.unwrap_or(f64::INFINITY).min(capacity).max(1.0);
    let per_replica = places + policy.queue_depth;
    let by_load = round_up(seen.load / per_replica);
    let arrivals = memory.arrivals(policy, window, now);
    // A replica that is to carry fewer requests than it can completes fewer.
    let known = memory.completion_rate().map(|rate| rate * places / capacity);
    let rate = known.or_else(|| memory.service_seconds().map(|seconds| places / seconds));
    let need = arrivals.zip(rate).map(|(arrivals, rate)| Need { arrivals, rate, places });
    let mut replicas = by_load;
    if let Some(need) = &need {
        let ahead = need.ahead(seen.load, seen.ready, per_replica, memory.start_seconds());
        replicas = replicas.max(need.steady()).max(ahead);
    }
    let refused = memory.refused(policy.panic, now);
    let by_arrivals = replicas;
    if refused.is_some_and(|r| r > 0.0) {
        replicas = replicas.max(seen.ready + 1);
    }
    if let (Some(need), Some(_)) = (&need, known) {
        replicas = replicas.min((seen.ready + 1).max(need.most()));
    }
    Some(Recommendation {
        replicas,
        refused: replicas > by_arrivals,
        surges: arrivals.is_some_and(|a| a.surge),
        inputs: Inputs {
            load: seen.load,
            window,
            per_replica,
            ready: seen.ready,
            refused,
            arrivals: arrivals.map(|a| a.lasting),
            completions: memory.completion_rate(),
        },
    })
}

/// Rounds up, forgiving the last digits of floating point.
fn round_up(x: f64) -> i32 {
    (x - 1e-9).ceil().clamp(0.0, 1e6) as i32
}

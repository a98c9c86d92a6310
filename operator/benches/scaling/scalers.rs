//! Our autoscaler and models of three others, each with its defaults and told how many requests a replica computes.
//!
//! What the others do was read in their sources and documentation:
//!
//! - `KubeAI` (substratusai/kubeai, internal/modelautoscaler/autoscaler.go, internal/modelclient/scale.go,
//!   internal/config/system.go): every 10 s; the mean of 60 values, 0 at first; rounded up; `scaleDownDelaySeconds` 30
//!   is three rounds that ask for fewer, and the fourth is obeyed; averages outlive a restart.
//! - Knative's KPA (knative/serving, pkg/autoscaler/scaling/autoscaler.go, pkg/autoscaler/config/config.go): every 2 s;
//!   windows of 60 s and 6 s; 70 % of the concurrency; panic at twice the ready pods, until a stable window has passed
//!   without; down by at most half of the ready pods, with no delay; a restart with several pods begins in panic.
//! - KEDA with the horizontal pod autoscaler (keda.sh, `ScaledObject` specification; kubernetes/kubernetes,
//!   pkg/apis/autoscaling/v2/defaults.go, pkg/controller/podautoscaler): every 15 s, and the metric is asked for anew each
//!   time (`pollingInterval` 30 s and `cooldownPeriod` 300 s are for zero alone); a tolerance of a tenth; up by 4 pods or to
//!   twice as many in 15 s; down to the greatest recommendation of 300 s, the number at a restart among them.

use std::collections::VecDeque;
use std::time::Duration;

use vlm_operator::demand::gateways::GatewayReading;
use vlm_operator::demand::reading::Reading;
use vlm_operator::demand::track::{GatewayAnswer, PodAnswer, Tracker};
use vlm_operator::plan::scale::{Memory, Policy, step};

use crate::world::{LIMITS, SLOTS, Seen, SeenReplica};

/// Something that decides how many replicas there are.
pub trait Scaler {
    /// Seconds between two decisions.
    fn interval(&self) -> f64;
    /// How many to have; `seen` is `None` while no metric can be read. What each of the `replicas` says can be read
    /// or not as well.
    fn decide(&mut self, seen: Option<Seen>, replicas: &[SeenReplica], ordered: i32, now: f64) -> i32;
    /// It starts anew, with so many replicas ordered and ready, and keeps only what it had written down.
    fn restart(&mut self, ordered: i32, ready: i32, now: f64);
}

fn clamp(wanted: f64) -> i32 {
    (wanted - 1e-9).ceil().clamp(f64::from(LIMITS.0), f64::from(LIMITS.1)) as i32
}

/// Ours: the decision and what turns readings into its samples, as they are.
pub struct Ours {
    policy: Policy,
    memory: Memory,
    tracker: Tracker,
}

impl Ours {
    /// With the defaults of `spec.scaling`.
    pub fn new() -> Self {
        let scaling = vlm_crds::scaling::Scaling {
            min_replicas: Some(LIMITS.0),
            max_replicas: Some(LIMITS.1),
            ..vlm_crds::scaling::Scaling::default()
        };
        let policy = Policy::new(&scaling, SLOTS, false);
        Self { policy, memory: Memory::new(Duration::ZERO), tracker: Tracker::default() }
    }
}

/// What the replicas and the gateway answer: of those that wait, the gateway gives each replica that is full as many as
/// may wait there, and holds the rest.
fn answers(seen: Option<Seen>, replicas: &[SeenReplica], queue_depth: f64) -> (Vec<PodAnswer>, GatewayAnswer) {
    let mut held = seen.map_or(0.0, |seen| seen.waiting as f64);
    let pod = |replica: &SeenReplica| {
        let full = replica.ready && replica.running == SLOTS as usize;
        let waiting = if full { held.min(queue_depth) } else { 0.0 };
        held -= waiting;
        let reading = Reading {
            running: replica.running as f64,
            waiting,
            capacity: f64::from(SLOTS),
            arrived: Some(0.0),
            refused: Some(0.0),
            finished: Some(replica.finished as f64),
            generated: Some(replica.tokens),
        };
        let answers = seen.is_some() && replica.ready;
        PodAnswer { pod: replica.number.to_string(), ready: replica.ready, reading: answers.then_some(reading) }
    };
    let pods = replicas.iter().map(pod).collect();
    let reading = seen.map(|seen| GatewayReading { held, arrived: seen.arrived as f64, refused: seen.refused as f64 });
    (pods, GatewayAnswer { gateway: "one".to_owned(), ready: true, reading })
}

impl Scaler for Ours {
    fn interval(&self) -> f64 {
        2.0
    }

    fn decide(&mut self, seen: Option<Seen>, replicas: &[SeenReplica], ordered: i32, now: f64) -> i32 {
        let (pods, gateway) = answers(seen, replicas, self.policy.queue_depth);
        let now = Duration::from_secs_f64(now);
        let (mut sample, mut health) = self.tracker.fold(&pods, now);
        self.tracker.add_gateways(&[gateway], (&mut sample, &mut health), now);
        step(&self.policy, &mut self.memory, ordered, sample, now).to
    }

    fn restart(&mut self, _: i32, _: i32, now: f64) {
        (self.memory, self.tracker) = (Memory::new(Duration::from_secs_f64(now)), Tracker::default());
    }
}

/// `KubeAI`.
#[derive(Default)]
pub struct KubeAi {
    window: VecDeque<f64>,
    calm_rounds: u32,
}

impl Scaler for KubeAi {
    fn interval(&self) -> f64 {
        10.0
    }

    fn decide(&mut self, seen: Option<Seen>, _: &[SeenReplica], ordered: i32, _: f64) -> i32 {
        let Some(seen) = seen else { return ordered };
        self.window.push_back(seen.load());
        if self.window.len() > 60 {
            self.window.pop_front();
        }
        // What came before the first round counts as nothing, as in its moving average of a fixed length.
        let wanted = clamp(self.window.iter().sum::<f64>() / 60.0 / f64::from(SLOTS));
        if wanted >= ordered {
            self.calm_rounds = 0;
            return wanted;
        }
        self.calm_rounds += 1;
        if self.calm_rounds > 3 { wanted } else { ordered }
    }

    /// Its averages are kept in a `ConfigMap`.
    fn restart(&mut self, _: i32, _: i32, _: f64) {
        self.calm_rounds = 0;
    }
}

/// Knative's pod autoscaler.
#[derive(Default)]
pub struct Knative {
    loads: VecDeque<(f64, f64)>,
    /// When the surge was last seen that is not over yet.
    panic_since: Option<f64>,
    panic_peak: f64,
}

impl Knative {
    fn mean(&self, window: f64, now: f64) -> f64 {
        let recent: Vec<_> = self.loads.iter().filter(|(t, _)| *t > now - window).map(|(_, load)| load).collect();
        recent.iter().copied().sum::<f64>() / recent.len().max(1) as f64
    }
}

impl Scaler for Knative {
    fn interval(&self) -> f64 {
        2.0
    }

    fn decide(&mut self, seen: Option<Seen>, _: &[SeenReplica], ordered: i32, now: f64) -> i32 {
        let Some(seen) = seen else { return ordered };
        self.loads.push_back((now, seen.load()));
        self.loads.retain(|(t, _)| *t > now - 60.0);
        let target = 0.7 * f64::from(SLOTS);
        let ready = f64::from(seen.ready.max(1));
        let least = (ready / 2.0).floor();
        let calm = (self.mean(60.0, now) / target).ceil();
        let surge = (self.mean(6.0, now) / target).ceil();
        if surge / ready >= 2.0 {
            self.panic_since = Some(now);
        } else if self.panic_since.is_some_and(|since| since + 60.0 < now) {
            (self.panic_since, self.panic_peak) = (None, 0.0);
        }
        if self.panic_since.is_none() {
            return clamp(calm.max(least));
        }
        self.panic_peak = self.panic_peak.max(calm.max(surge).max(least));
        clamp(self.panic_peak)
    }

    fn restart(&mut self, _: i32, ready: i32, now: f64) {
        let several = (ready > 1).then_some(now);
        *self = Self { loads: VecDeque::new(), panic_since: several, panic_peak: f64::from(ready) };
    }
}

/// KEDA's trigger and the horizontal pod autoscaler.
#[derive(Default)]
pub struct Keda {
    wishes: VecDeque<(f64, i32)>,
}

impl Scaler for Keda {
    fn interval(&self) -> f64 {
        15.0
    }

    fn decide(&mut self, seen: Option<Seen>, _: &[SeenReplica], ordered: i32, now: f64) -> i32 {
        let Some(seen) = seen else { return ordered };
        let load = seen.load();
        let ratio = load / f64::from(SLOTS) / f64::from(ordered);
        let wanted = if (ratio - 1.0).abs() <= 0.1 { ordered } else { clamp(load / f64::from(SLOTS)) };
        self.wishes.push_back((now, wanted));
        self.wishes.retain(|(t, _)| *t > now - 300.0);
        let stable = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wanted);
        if wanted > ordered { wanted.min((ordered + 4).max(2 * ordered)) } else { stable.min(ordered) }
    }

    fn restart(&mut self, ordered: i32, _: i32, now: f64) {
        self.wishes = VecDeque::from([(now, ordered)]);
    }
}

//! Our autoscaler and models of three others, each with its defaults and told how many requests a replica computes.
//!
//! The others are modelled by their documentation: `KubeAI` (mean over ten minutes, every 10 s, three calm rounds before
//! replicas go), Knative's KPA (60 s and 6 s, 70 % of the concurrency, down by at most half), and KEDA with the
//! horizontal pod autoscaler (the metric every 30 s, a decision every 15 s, a tolerance of a tenth, up by 4 pods or to
//! twice as many, down after 300 s).

use std::collections::VecDeque;
use std::time::Duration;

use vlm_operator::plan::scale::{Memory, Policy, Sample, step};

use crate::world::{LIMITS, SLOTS, Seen};

/// Something that decides how many replicas there are.
pub trait Scaler {
    /// Seconds between two decisions.
    fn interval(&self) -> f64;
    /// How many to have; `seen` is `None` while no metric can be read.
    fn decide(&mut self, seen: Option<Seen>, ordered: i32, ready: i32, now: f64) -> i32;
    /// It starts anew and keeps only what it had written down.
    fn restart(&mut self, now: f64);
}

fn clamp(wanted: f64) -> i32 {
    (wanted - 1e-9).ceil().clamp(f64::from(LIMITS.0), f64::from(LIMITS.1)) as i32
}

/// Ours.
pub struct Ours {
    policy: Policy,
    memory: Memory,
    last: Option<(f64, Seen)>,
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
        Self { policy, memory: Memory::new(Duration::ZERO), last: None }
    }
}

impl Scaler for Ours {
    fn interval(&self) -> f64 {
        2.0
    }

    fn decide(&mut self, seen: Option<Seen>, ordered: i32, ready: i32, now: f64) -> i32 {
        let mut sample = Sample { elapsed: Duration::from_secs(2), ready, silent: seen.is_none(), ..Sample::default() };
        if let Some(seen) = seen {
            let last = self.last.filter(|(then, _)| now - then < 2.5);
            (sample.load, sample.capacity) = (Some(seen.load()), Some(f64::from(SLOTS)));
            let gained = |of: fn(&Seen) -> u64| last.map(|(_, last)| (of(&seen) - of(&last)) as f64);
            (sample.arrived, sample.refused) = (gained(|s| s.arrived), gained(|s| s.refused));
            if let Some((then, last)) = last.filter(|(_, last)| last.waiting > 0 && seen.waiting > 0) {
                sample.finished = (seen.finished - last.finished) as f64;
                sample.busy_seconds = (now - then) * f64::from(last.ready);
            }
            self.last = Some((now, seen));
        }
        step(&self.policy, &mut self.memory, ordered, sample, Duration::from_secs_f64(now)).to
    }

    fn restart(&mut self, now: f64) {
        (self.memory, self.last) = (Memory::new(Duration::from_secs_f64(now)), None);
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

    fn decide(&mut self, seen: Option<Seen>, ordered: i32, _: i32, _: f64) -> i32 {
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
    fn restart(&mut self, _: f64) {
        self.calm_rounds = 0;
    }
}

/// Knative's pod autoscaler.
#[derive(Default)]
pub struct Knative {
    loads: VecDeque<(f64, f64)>,
    panic_until: Option<f64>,
    panic_peak: i32,
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

    fn decide(&mut self, seen: Option<Seen>, ordered: i32, ready: i32, now: f64) -> i32 {
        let Some(seen) = seen else { return ordered };
        self.loads.push_back((now, seen.load()));
        self.loads.retain(|(t, _)| *t > now - 60.0);
        let target = 0.7 * f64::from(SLOTS);
        let ready = f64::from(ready.max(1));
        let least = (ready / 2.0).floor();
        let calm = (self.mean(60.0, now) / target).ceil().max(least);
        let surge = (self.mean(6.0, now) / target).ceil().max(least);
        if surge / ready >= 2.0 {
            self.panic_until = Some(now + 60.0);
        }
        if self.panic_until.is_some_and(|until| now < until) {
            self.panic_peak = self.panic_peak.max(clamp(surge.max(calm))).max(ordered);
            return self.panic_peak;
        }
        (self.panic_until, self.panic_peak) = (None, 0);
        clamp(calm)
    }

    fn restart(&mut self, _: f64) {
        *self = Self::default();
    }
}

/// KEDA's trigger and the horizontal pod autoscaler.
#[derive(Default)]
pub struct Keda {
    metric: Option<f64>,
    rounds: u32,
    wishes: VecDeque<(f64, i32)>,
}

impl Scaler for Keda {
    fn interval(&self) -> f64 {
        15.0
    }

    fn decide(&mut self, seen: Option<Seen>, ordered: i32, _: i32, now: f64) -> i32 {
        if self.rounds.is_multiple_of(2) {
            self.metric = seen.map(|seen| seen.load());
        }
        self.rounds += 1;
        let Some(load) = self.metric else { return ordered };
        let ratio = load / f64::from(SLOTS) / f64::from(ordered);
        let wanted = if (ratio - 1.0).abs() <= 0.1 { ordered } else { clamp(load / f64::from(SLOTS)) };
        self.wishes.push_back((now, wanted));
        self.wishes.retain(|(t, _)| *t > now - 300.0);
        let stable = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wanted);
        if wanted > ordered { wanted.min((ordered + 4).max(2 * ordered)) } else { stable.min(ordered) }
    }

    fn restart(&mut self, _: f64) {
        *self = Self::default();
    }
}

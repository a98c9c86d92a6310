//! From readings to a [`Sample`]: differences of counters, freshness, and who is silent. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::{gateways::GatewayReading, reading::Reading};
use crate::plan::scale::Sample;

#[cfg(test)]
mod tests;

/// A reading counts as fresh for three ticks.
pub const FRESH: Duration = Duration::from_secs(6);
/// A replica that is silent for longer counts as failed.
pub const FAILED: Duration = Duration::from_secs(60);

/// Whether the load can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing to read yet.
    #[default]
    Pending,
    /// Every source answers.
    Fresh,
    /// These sources are silent.
    Stale(Vec<String>),
}

/// What one pod answered in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct PodAnswer {
    /// Name of the pod.
    pub pod: String,
    /// Whether it takes requests. One that doesn't, because it still loads or has too much to do, is
    /// asked as well: what it holds is load, but nobody waits for its answer.
    pub ready: bool,
    /// What it said; `None` when it didn't answer.
    pub reading: Option<Reading>,
}

/// What Prometheus said of the load.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryAnswer {
    /// So many requests.
    Load(f64),
    /// It has no series of the model, and this is how it says so.
    Absent(String),
    /// Nothing that can be used, and why.
    Failed(String),
}

/// One round of a model whose load Prometheus tells.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryRound {
    /// Ready pods.
    pub ready: i32,
    /// All pods.
    pub pods: usize,
    /// What Prometheus said.
    pub answer: QueryAnswer,
    /// What the pods said, of which only arrivals count: where a model may go without replicas, what comes straight to a
    /// pod between two questions must not be missed.
    pub direct: Option<Vec<PodAnswer>>,
}

/// What one gateway answered in one round, of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayAnswer {
    /// Name of the gateway's pod.
    pub gateway: String,
    /// Whether it takes requests. One that doesn't is asked as well, while it drains: what it holds is load.
    pub ready: bool,
    /// What it said; `None` when it didn't answer, or said nothing of this model.
    pub reading: Option<GatewayReading>,
}

/// The latest of each source of one model.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    pods: BTreeMap<String, PodTrack>,
    gateways: BTreeMap<String, Track<GatewayReading>>,
    /// When Prometheus was first asked, and when it last answered with which load.
    asked: Option<Duration>,
    answered: Option<(Duration, f64)>,
    last_tick: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Track<R> {
    since: Duration,
    last: Option<(Duration, R)>,
}

#[derive(Clone, Debug)]
struct PodTrack {
    track: Track<Reading>,
    /// Requests that it has completed since it was first seen.
    completed: f64,
    /// Requests that it has completed since requests wait for it without a pause.
    turned_over: f64,
    /// Since when it has completed none of them, in seconds that are not counted yet.
    uncounted_seconds: f64,
    /// Tokens that it has generated in them.
    uncounted_tokens: f64,
}

impl Tracker {
    /// Requests in flight on a pod, as far as known.
    pub fn in_flight(&self, pod: &str) -> Option<f64> {
        self.pods.get(pod)?.track.last.as_ref().map(|(_, r)| r.running + r.waiting)
    }

    /// Takes in one round of answers.
    pub fn fold(&mut self, round: &[PodAnswer], now: Duration) -> (Sample, Health) {
        let elapsed = self.elapsed(now);
        self.fold_pods(round, elapsed, now)
    }

    fn fold_pods(&mut self, round: &[PodAnswer], elapsed: Duration, now: Duration) -> (Sample, Health) {
        self.pods.retain(|name, _| round.iter().any(|answer| answer.pod == *name));
        let mut sample = Sample { elapsed, ..Sample::default() };
        let (mut heard_of, mut capacities, mut silent) = (0, Vec::new(), Vec::new());
        for answer in round {
            let pod = self.pods.entry(answer.pod.clone()).or_insert_with(|| PodTrack::new(now));
            if let Some(reading) = &answer.reading {
                pod.add_differences(&mut sample, reading, elapsed, now);
                pod.track.last = Some((now, reading.clone()));
            }
            let track = &pod.track;
            let quiet = track.quiet(now);
            if answer.ready && quiet > FRESH {
                silent.push(answer.pod.clone());
            }
            if quiet > FAILED || (!answer.ready && answer.reading.is_none()) {
                continue;
            }
            if answer.ready {
                sample.ready += 1;
                sample.silent |= track.last.is_none() || quiet > FRESH;
            }
            if let Some((_, last)) = &track.last {
                heard_of += i32::from(quiet <= FRESH);
                sample.load = Some(sample.load.unwrap_or(0.0) + last.running + last.waiting);
                capacities.push(last.capacity);
            }
        }
        if heard_of == 0 {
            sample.load = None;
        }
        sample.silent |= heard_of == 0 || sample.ready == 0;
        if !capacities.is_empty() {
            sample.capacity = Some(capacities.iter().sum::<f64>() / capacities.len() as f64);
        }
        silent.sort();
        let health = match (silent.is_empty(), sample.ready > 0 && heard_of > 0) {
            (false, _) => Health::Stale(silent),
            (true, true) => Health::Fresh,
            (true, false) => Health::Pending,
        };
        (sample, health)
    }

    /// Takes in one answer of Prometheus, or why there is none.
    pub fn fold_query(&mut self, round: &QueryRound, now: Duration) -> (Sample, Health) {
        let elapsed = self.elapsed(now);
        let mut health = self.hear_query(round, now);
        let load = match &round.answer {
            QueryAnswer::Load(load) => Some(*load),
            QueryAnswer::Absent(_) => None,
            // An answer that is lost is no news: the last one counts for as long as it is fresh, as those of pods do.
            QueryAnswer::Failed(_) => {
                self.answered.filter(|(then, _)| now.saturating_sub(*then) <= FRESH).map(|(_, load)| load)
            }
        };
        let mut sample = Sample { elapsed, ready: round.ready, load, silent: load.is_none(), ..Sample::default() };
        if let Some(pods) = &round.direct {
            let (heard, pods_health) = self.fold_pods(pods, elapsed, now);
            sample.arrived = heard.arrived;
            sample.unheard = round.ready > 0 && heard.silent;
            if let Health::Stale(silent) = pods_health {
                health = match health {
                    Health::Stale(mut all) => {
                        all.extend(silent);
                        Health::Stale(all)
                    }
                    _ => Health::Stale(silent),
                };
            }
        }
        (sample, health)
    }

    /// Whether Prometheus can be relied on. Without pods it has no series, and it takes a while until it has any.
    fn hear_query(&mut self, round: &QueryRound, now: Duration) -> Health {
        if round.pods == 0 && matches!(round.answer, QueryAnswer::Absent(_)) {
            (self.asked, self.answered) = (None, None);
            return Health::Pending;
        }
        let asked = *self.asked.get_or_insert(now);
        let quiet = now.saturating_sub(self.answered.map_or(asked, |(then, _)| then));
        match &round.answer {
            QueryAnswer::Load(load) => {
                self.answered = Some((now, *load));
                Health::Fresh
            }
            QueryAnswer::Absent(_) if self.answered.is_none() && quiet <= FAILED => Health::Pending,
            QueryAnswer::Absent(why) | QueryAnswer::Failed(why) if quiet > FRESH => {
                Health::Stale(vec![format!("Prometheus ({why})")])
            }
            _ if self.answered.is_none() => Health::Pending,
            _ => Health::Fresh,
        }
    }

    /// Adds what the gateways answered in the same round: what they hold is load, and what arrived there arrived.
    ///
    /// Without pods that are ready, the gateways alone know the load. A gateway that is silent forbids to shrink, and
    /// where there is none, nobody knows that nothing arrives.
    pub fn add_gateways(
        &mut self,
        round: &[GatewayAnswer],
        (sample, health): (&mut Sample, &mut Health),
        now: Duration,
    ) {
        self.gateways.retain(|name, _| round.iter().any(|answer| answer.gateway == *name));
        let (mut held, mut heard_of, mut silent) = (0.0, 0, Vec::new());
        for answer in round {
            let track = self.gateways.entry(answer.gateway.clone()).or_insert(Track { since: now, last: None });
            if let Some(reading) = answer.reading {
                let (then, last) = track.last.unwrap_or((now, reading));
                let share = share(sample.elapsed, now.saturating_sub(then));
                add(&mut sample.arrived, Some(share * gained(reading.arrived, last.arrived)));
                add(&mut sample.refused, Some(share * gained(reading.refused, last.refused)));
                track.last = Some((now, reading));
            }
            let quiet = track.quiet(now);
            if quiet > FAILED || (!answer.ready && answer.reading.is_none()) {
                continue;
            }
            if answer.ready && quiet > FRESH {
                silent.push(format!("gateway {}", answer.gateway));
            }
            sample.silent |= answer.ready && (track.last.is_none() || quiet > FRESH);
            if let Some((_, last)) = &track.last {
                heard_of += i32::from(quiet <= FRESH);
                held += last.held;
            }
        }
        if heard_of == 0 {
            sample.arrived = None;
        } else if sample.load.is_some() || held > 0.0 || sample.ready == 0 {
            sample.load = Some(sample.load.unwrap_or(0.0) + held);
        }
        match health {
            Health::Stale(all) => all.extend(silent),
            _ if !silent.is_empty() => *health = Health::Stale(silent),
            // Nobody has to answer while there is no replica.
            Health::Pending if heard_of > 0 && self.pods.is_empty() && self.asked.is_none() => *health = Health::Fresh,
            _ => {}
        }
    }

    fn elapsed(&mut self, now: Duration) -> Duration {
        let elapsed = self.last_tick.map_or(Duration::ZERO, |t| now.saturating_sub(t));
        self.last_tick = Some(now);
        elapsed
    }
}

impl<R> Track<R> {
    /// How long nothing was heard.
    fn quiet(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last.as_ref().map_or(self.since, |(t, _)| *t))
    }
}

/// What a counter gained. One that fell was set back by a restart: all it shows is new.
fn gained(new: f64, old: f64) -> f64 {
    if new >= old { new - old } else { new }
}

/// The share of a gain that belongs to the last tick, of one that came about since an older reading.
fn share(elapsed: Duration, since: Duration) -> f64 {
    if since > elapsed { elapsed.as_secs_f64() / since.as_secs_f64() } else { 1.0 }
}

fn add(sum: &mut Option<f64>, gain: Option<f64>) {
    if let Some(gain) = gain {
        *sum = Some(sum.unwrap_or(0.0) + gain);
    }
}

impl PodTrack {
    fn new(now: Duration) -> Self {
        Self {
            track: Track { since: now, last: None },
            completed: 0.0,
            turned_over: 0.0,
            uncounted_seconds: 0.0,
            uncounted_tokens: 0.0,
        }
    }

    /// Adds what the counters gained since the last reading.
    fn add_differences(&mut self, sample: &mut Sample, reading: &Reading, elapsed: Duration, now: Duration) {
        let Some((then, last)) = &self.track.last else {
            // The first reading of a pod is where its counters start.
            let start = |sum: &mut Option<f64>, counter: Option<f64>| {
                if counter.is_some() {
                    *sum = Some(sum.unwrap_or(0.0));
                }
            };
            start(&mut sample.arrived, reading.arrived);
            start(&mut sample.refused, reading.refused);
            return;
        };
        let gains = |new: Option<f64>, old: Option<f64>| new.zip(old).map(|(new, old)| gained(new, old));
        let share = share(elapsed, now.saturating_sub(*then));
        add(&mut sample.arrived, gains(reading.arrived, last.arrived).map(|gain| share * gain));
        add(&mut sample.refused, gains(reading.refused, last.refused).map(|gain| share * gain));
        let Some(gain) = gains(reading.finished, last.finished) else { return };
        let seconds = now.saturating_sub(*then).as_secs_f64();
        let tokens = gains(reading.generated, last.generated).unwrap_or_default();
        // A new replica completes nothing for a while, which says nothing of how long it takes; and the first that it
        // completes is the picture by which a gateway has reached it.
        if self.completed > 1.0 {
            sample.completed += gain;
            sample.computed_seconds += seconds * f64::midpoint(reading.running, last.running);
            sample.tokens += tokens;
        }
        self.completed += gain;
        // Places that were taken at the same moment complete nothing for a while, and then all at once: time counts from
        // completion to completion, once each place has completed one.
        if reading.waiting == 0.0 || last.waiting == 0.0 {
            (self.turned_over, self.uncounted_seconds, self.uncounted_tokens) = (0.0, 0.0, 0.0);
        } else if self.turned_over < reading.capacity {
            self.turned_over += gain;
        } else {
            self.uncounted_seconds += seconds;
            self.uncounted_tokens += tokens;
            if gain > 0.0 {
                sample.finished += gain;
                sample.busy_seconds += std::mem::take(&mut self.uncounted_seconds);
                sample.busy_tokens += std::mem::take(&mut self.uncounted_tokens);
            }
        }
    }
}

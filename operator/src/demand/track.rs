//! From readings to a [`Sample`]: differences of counters, freshness, and who is silent. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::reading::Reading;
use crate::plan::scale::Sample;

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

/// The latest of each source of one model.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    pods: BTreeMap<String, Track>,
    /// When Prometheus was first asked, and when it last answered.
    asked: Option<Duration>,
    answered: Option<Duration>,
    last_tick: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Track {
    since: Duration,
    last: Option<(Duration, Reading)>,
}

impl Tracker {
    /// Requests in flight on a pod, as far as known.
    pub fn in_flight(&self, pod: &str) -> Option<f64> {
        self.pods.get(pod)?.last.as_ref().map(|(_, r)| r.running + r.waiting)
    }

    /// Takes in one round of answers.
    pub fn fold(&mut self, round: &[PodAnswer], now: Duration) -> (Sample, Health) {
        let elapsed = self.elapsed(now);
        self.pods.retain(|name, _| round.iter().any(|answer| answer.pod == *name));
        let mut sample = Sample { elapsed, ..Sample::default() };
        let (mut heard_of, mut capacities, mut silent) = (0, Vec::new(), Vec::new());
        for answer in round {
            let track = self.pods.entry(answer.pod.clone()).or_insert(Track { since: now, last: None });
            if let Some(reading) = &answer.reading {
                add_differences(&mut sample, track, reading, now);
                track.last = Some((now, reading.clone()));
            }
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
    pub fn fold_query(&mut self, ready: i32, answer: Result<f64, &str>, now: Duration) -> (Sample, Health) {
        let elapsed = self.elapsed(now);
        let asked = *self.asked.get_or_insert(now);
        if answer.is_ok() {
            self.answered = Some(now);
        }
        let quiet = now.saturating_sub(self.answered.unwrap_or(asked));
        let health = match answer {
            Err(error) if quiet > FRESH => Health::Stale(vec![format!("Prometheus ({error})")]),
            _ if self.answered.is_none() => Health::Pending,
            _ => Health::Fresh,
        };
        let sample = Sample { elapsed, ready, load: answer.ok(), silent: answer.is_err(), ..Sample::default() };
        (sample, health)
    }

    fn elapsed(&mut self, now: Duration) -> Duration {
        let elapsed = self.last_tick.map_or(Duration::ZERO, |t| now.saturating_sub(t));
        self.last_tick = Some(now);
        elapsed
    }
}

impl Track {
    /// How long nothing was heard.
    fn quiet(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last.as_ref().map_or(self.since, |(t, _)| *t))
    }
}

/// Adds what the counters of a pod gained since its last reading.
fn add_differences(sample: &mut Sample, track: &Track, reading: &Reading, now: Duration) {
    let Some((then, last)) = &track.last else {
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
    let gained = |new: Option<f64>, old: Option<f64>| {
        // A counter that fell was set back by a restart: all it shows is new.
        new.zip(old).map(|(new, old)| if new >= old { new - old } else { new })
    };
    let add = |sum: &mut Option<f64>, gain: Option<f64>| {
        if let Some(gain) = gain {
            *sum = Some(sum.unwrap_or(0.0) + gain);
        }
    };
    add(&mut sample.arrived, gained(reading.arrived, last.arrived));
    add(&mut sample.refused, gained(reading.refused, last.refused));
    let busy = reading.waiting > 0.0 && last.waiting > 0.0;
    if let Some(gain) = gained(reading.finished, last.finished).filter(|_| busy) {
        sample.finished += gain;
        sample.busy_seconds += now.saturating_sub(*then).as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[expect(clippy::unnecessary_wraps, reason = "stands beside None in every list")]
    fn reading(running: f64, waiting: f64, counter: f64) -> Option<Reading> {
        let counter = Some(counter);
        Some(Reading { running, waiting, capacity: 4.0, arrived: counter, refused: counter, finished: counter })
    }

    fn round(readings: &[Option<Reading>]) -> Vec<PodAnswer> {
        let answer = |(i, reading): (usize, &Option<Reading>)| PodAnswer {
            pod: format!("p{i}"),
            ready: true,
            reading: reading.clone(),
        };
        readings.iter().enumerate().map(answer).collect()
    }

    #[test]
    fn counters_are_compared_with_the_reading_before_and_survive_a_restart() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.fold(&round(&[reading(1.0, 0.0, 100.0)]), at(0)).0.arrived, Some(0.0));
        assert_eq!(tracker.fold(&round(&[reading(1.0, 0.0, 104.0)]), at(2)).0.arrived, Some(4.0));
        let (sample, health) = tracker.fold(&round(&[reading(1.0, 0.0, 3.0)]), at(4));
        assert_eq!((sample.arrived, sample.refused, sample.load), (Some(3.0), Some(3.0), Some(1.0)));
        assert_eq!((sample.elapsed, health), (at(2), Health::Fresh));
    }

    #[test]
    fn completions_count_only_while_requests_wait() {
        let mut tracker = Tracker::default();
        tracker.fold(&round(&[reading(4.0, 2.0, 0.0), reading(1.0, 0.0, 0.0)]), at(0));
        let (sample, _) = tracker.fold(&round(&[reading(4.0, 1.0, 6.0), reading(1.0, 0.0, 9.0)]), at(2));
        assert_eq!((sample.finished, sample.busy_seconds), (6.0, 2.0));
    }

    #[test]
    fn a_silent_pod_keeps_its_last_load_forbids_shrinking_and_is_given_up_after_a_minute() {
        let mut tracker = Tracker::default();
        tracker.fold(&round(&[reading(1.0, 1.0, 0.0), reading(3.0, 0.0, 0.0)]), at(0));
        let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(6));
        assert_eq!((sample.load, sample.silent, health), (Some(5.0), false, Health::Fresh));
        let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(8));
        assert_eq!((sample.load, sample.silent, sample.ready), (Some(5.0), true, 2));
        assert_eq!(health, Health::Stale(vec!["p1".to_owned()]));
        let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(61));
        assert_eq!((sample.load, sample.silent, sample.ready), (Some(2.0), false, 1));
        assert_eq!(health, Health::Stale(vec!["p1".to_owned()]));
    }

    #[test]
    fn when_all_are_silent_the_load_is_unknown_for_as_long_as_it_lasts() {
        let mut tracker = Tracker::default();
        tracker.fold(&round(&[reading(1.0, 1.0, 0.0)]), at(0));
        for t in [8, 100, 10_000] {
            let (sample, health) = tracker.fold(&round(&[None]), at(t));
            assert_eq!((sample.load, sample.silent), (None, true), "{t}");
            assert_eq!(health, Health::Stale(vec!["p0".to_owned()]));
        }
    }

    #[test]
    fn a_pod_that_has_not_answered_yet_forbids_shrinking() {
        let mut tracker = Tracker::default();
        let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(0));
        assert_eq!((sample.load, sample.silent, sample.ready, health), (Some(2.0), true, 2, Health::Fresh));
        assert_eq!(Tracker::default().fold(&[], at(0)).1, Health::Pending);
    }

    #[test]
    fn a_pod_with_too_much_to_do_to_be_ready_is_load_and_its_silence_no_matter() {
        let mut tracker = Tracker::default();
        let mut pods = round(&[reading(1.0, 0.0, 0.0), reading(4.0, 9.0, 0.0)]);
        pods[1].ready = false;
        let (sample, health) = tracker.fold(&pods, at(0));
        assert_eq!((sample.load, sample.ready, sample.silent, health), (Some(14.0), 1, false, Health::Fresh));
        pods[1].reading = None;
        let (sample, health) = tracker.fold(&pods, at(30));
        assert_eq!((sample.load, sample.silent, health), (Some(1.0), false, Health::Fresh));
        pods[0].ready = false;
        let (sample, health) = tracker.fold(&pods, at(32));
        assert_eq!((sample.load, sample.ready, sample.silent, health), (Some(1.0), 0, true, Health::Pending));
    }

    #[test]
    fn a_silent_prometheus_is_unknown_load_and_one_lost_answer_no_news() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.fold_query(2, Err("why"), at(0)).1, Health::Pending);
        let (sample, health) = tracker.fold_query(2, Ok(7.0), at(2));
        assert_eq!((sample.load, sample.silent, health), (Some(7.0), false, Health::Fresh));
        let (sample, health) = tracker.fold_query(2, Err("why"), at(4));
        assert_eq!((sample.load, sample.silent, health), (None, true, Health::Fresh));
        let (_, health) = tracker.fold_query(2, Err("why"), at(9));
        assert_eq!(health, Health::Stale(vec!["Prometheus (why)".to_owned()]));
    }
}

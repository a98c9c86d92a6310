//! What the autoscaler remembers of one model: samples, wishes, and the rate of completions.

use std::{collections::VecDeque, time::Duration};

use super::{Policy, Sample};

/// Over how much busy time completions are averaged.
const RATE_MEMORY_SECONDS: f64 = 60.0;
/// Completions and busy seconds after which their ratio means something.
const RATE_KNOWN: (f64, f64) = (3.0, 4.0);

/// What is remembered between two steps.
#[derive(Clone, Debug)]
pub struct Memory {
    since: Duration,
    was_ready: bool,
    /// When somebody asked last, or might have.
    last_asked: Duration,
    samples: VecDeque<(Duration, Sample)>,
    panic_until: Option<Duration>,
    /// Wishes of the down window that no later wish exceeds, greatest first.
    wishes: VecDeque<(Duration, i32)>,
    finished: f64,
    busy_seconds: f64,
    capacity: Option<f64>,
}

/// The samples of a window, added up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub load: f64,
    pub ready: i32,
    pub arrivals: Option<f64>,
}

impl Memory {
    /// An empty memory; from `now` on, one stable window passes before replicas may go.
    pub fn new(now: Duration) -> Self {
        Self {
            since: now,
            was_ready: false,
            last_asked: now,
            samples: VecDeque::new(),
            panic_until: None,
            wishes: VecDeque::new(),
            finished: 0.0,
            busy_seconds: 0.0,
            capacity: None,
        }
    }

    /// Completions per second of a replica for which requests wait; `None` until enough were seen.
    pub fn completion_rate(&self) -> Option<f64> {
        let known = self.finished >= RATE_KNOWN.0 && self.busy_seconds >= RATE_KNOWN.1;
        known.then(|| self.finished / self.busy_seconds)
    }

    pub(super) fn capacity(&self) -> Option<f64> {
        self.capacity
    }

    pub(super) fn take_in(&mut self, policy: &Policy, sample: Sample, now: Duration) {
        self.was_ready |= sample.ready > 0;
        self.capacity = sample.capacity.or(self.capacity);
        // What is not known may have been a request.
        if sample.load != Some(0.0) || sample.arrived != Some(0.0) || sample.silent {
            self.last_asked = now;
        }
        if sample.busy_seconds > 0.0 {
            let fade = (-sample.busy_seconds / RATE_MEMORY_SECONDS).exp();
            self.finished = self.finished * fade + sample.finished;
            self.busy_seconds = self.busy_seconds * fade + sample.busy_seconds;
        }
        self.samples.push_back((now, sample));
        while self.samples.front().is_some_and(|(t, _)| *t + policy.stable <= now) {
            self.samples.pop_front();
        }
    }

    /// The samples of the last `window`; `None` when the newest sample does not know the load.
    pub(super) fn look_back(&self, window: Duration, now: Duration) -> Option<Seen> {
        let newest = &self.samples.back()?.1;
        newest.load?;
        let (mut sum, mut count) = (0.0, 0.0);
        let (mut arrived, mut seconds) = (0.0, 0.0);
        for (_, sample) in self.samples.iter().rev().take_while(|(t, _)| *t + window > now) {
            if let Some(load) = sample.load {
                sum += load;
                count += 1.0;
            }
            if let Some(n) = sample.arrived {
                arrived += n;
                seconds += sample.elapsed.as_secs_f64();
            }
        }
        let arrivals = (seconds > 0.0).then(|| arrived / seconds);
        Some(Seen { load: sum / count, ready: newest.ready, arrivals })
    }

    /// Requests refused within the last `window`, but not those from before the newest replica was
    /// ready: it was ordered for them.
    pub(super) fn refused(&self, window: Duration, now: Duration) -> Option<f64> {
        let ready = self.samples.back()?.1.ready;
        let recent = self.samples.iter().rev().take_while(|(t, s)| *t + window > now && s.ready >= ready);
        recent.filter_map(|(_, s)| s.refused).fold(None, |sum, n| Some(sum.unwrap_or(0.0) + n))
    }

    pub(super) fn start_panic(&mut self, until: Duration) {
        self.panic_until = Some(until);
    }

    pub(super) fn panics(&self, now: Duration) -> bool {
        self.panic_until.is_some_and(|until| now < until)
    }

    /// A replica was ready before and a stable window has passed.
    pub(super) fn settled(&self, policy: &Policy, now: Duration) -> bool {
        self.was_ready && now >= self.since + policy.stable
    }

    /// Nobody has asked for `policy.idle`.
    pub(super) fn idle(&self, policy: &Policy, now: Duration) -> bool {
        now >= self.last_asked + policy.idle
    }

    /// Keeps the greatest wishes of the last `policy.down`. The first call stands for the unknown past.
    pub(super) fn remember_wish(&mut self, policy: &Policy, wish: i32, now: Duration) {
        while self.wishes.back().is_some_and(|(_, w)| *w <= wish) {
            self.wishes.pop_back();
        }
        self.wishes.push_back((now, wish));
        while self.wishes.len() > 1 && self.wishes.front().is_some_and(|(t, _)| *t + policy.down <= now) {
            self.wishes.pop_front();
        }
    }

    pub(super) fn greatest_wish(&self) -> Option<i32> {
        self.wishes.front().map(|(_, w)| *w)
    }
}

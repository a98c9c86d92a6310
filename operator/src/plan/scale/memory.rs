//! What the autoscaler remembers of one model: samples, wishes, and the rate of completions.

use std::{collections::VecDeque, time::Duration};

use super::{Policy, Sample};

/// Over how many completions the rate of a busy replica is averaged.
const RATE_MEMORY: f64 = 32.0;
/// Completions after which it means something.
const RATE_KNOWN: f64 = 12.0;
/// And so many times as long as a request is computed: places that were taken together complete together.
const RATE_KNOWN_SERVICES: f64 = 2.0;
/// Over how much time the seconds that a request is computed are averaged.
const SERVICE_MEMORY_SECONDS: f64 = 120.0;
/// Completions after which they mean something.
const SERVICE_KNOWN: f64 = 3.0;
/// How many standard deviations of chance a surge of arrivals must exceed, or a change of how long requests are.
const CHANCE_DEVIATIONS: f64 = 2.5;
/// Calm windows whose means of arrivals tell how they grow.
const TREND_WINDOWS: u32 = 3;
/// Seconds that a replica is taken to need to start while none was seen to.
const ASSUMED_START_SECONDS: f64 = 60.0;
/// Least and most of how long replicas stay that are no longer needed. Between them it is what one takes to start: to keep
/// an idle replica that long costs no more than to start it again (the ski rental rule), so no trace costs more than twice
/// the best.
const DOWN_LEAST: Duration = Duration::from_secs(60);
const DOWN_MOST: Duration = Duration::from_secs(600);
/// And while no replica was seen to start.
const DOWN_UNKNOWN: Duration = Duration::from_secs(300);

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
    busy_tokens: f64,
    completed: f64,
    computed_seconds: f64,
    capacity: Option<f64>,
    ordered: i32,
    /// Since when a number of replicas is ordered that were not all ready yet, oldest first.
    starting: VecDeque<(Duration, i32)>,
    start_seconds: Option<f64>,
}

/// Requests that arrive in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrivals {
    /// In the window, as they came.
    pub greatest: f64,
    /// By the calm window, or by the short one where that has more than chance and a single moment explain.
    pub lasting: f64,
    /// By the way they grew, when a replica that is ordered now has started.
    pub expected: f64,
    /// They are the short window's.
    pub surge: bool,
}

/// The samples of a window, added up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub load: f64,
    pub ready: i32,
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
            busy_tokens: 0.0,
            completed: 0.0,
            computed_seconds: 0.0,
            capacity: None,
            ordered: 0,
            starting: VecDeque::new(),
            start_seconds: None,
        }
    }

    /// Completions per second of a replica for which requests wait; `None` until enough were seen.
    pub fn completion_rate(&self) -> Option<f64> {
        let least = RATE_KNOWN_SERVICES * self.service_seconds().unwrap_or_default();
        let known = self.finished >= RATE_KNOWN && self.busy_seconds >= least;
        known.then(|| self.finished / self.busy_seconds)
    }

    /// The same of requests as they were in the last `window`, where their answers are shorter than those by which the
    /// rate was learnt: while none waits, nothing else tells that a replica completes more of them. Longer ones make
    /// requests wait, which teaches the rate anew.
    ///
    /// It is no more than places complete that are taken for as long as they were seen to be: none is taken for less time
    /// when the others are taken as well.
    pub(super) fn completion_rate_now(&self, window: Duration, capacity: f64, now: Duration) -> Option<f64> {
        let rate = self.completion_rate()?;
        let within = self.samples.iter().rev().take_while(|(t, _)| *t + window > now);
        let sums = within.fold([0.0; 3], |[completed, seconds, tokens], (_, sample)| {
            [completed + sample.completed, seconds + sample.computed_seconds, tokens + sample.tokens]
        });
        let [completed, seconds, tokens] = sums;
        if completed < RATE_KNOWN || tokens <= 0.0 {
            return Some(rate);
        }
        let tokens_each = tokens / completed * (1.0 + CHANCE_DEVIATIONS / completed.sqrt());
        let by_tokens = rate * self.busy_tokens / self.finished / tokens_each;
        Some(by_tokens.min(capacity * completed / seconds).max(rate))
    }

    /// The most requests that were in flight at a moment of the last `window`.
    pub(super) fn most_in_flight(&self, window: Duration, now: Duration) -> f64 {
        let within = self.samples.iter().rev().take_while(|(t, _)| *t + window > now);
        within.filter_map(|(_, sample)| sample.load).fold(0.0, f64::max)
    }

    /// Seconds that a replica computes one request, as far as it was seen: with few requests at a time, less than when
    /// all places are taken.
    pub(super) fn service_seconds(&self) -> Option<f64> {
        let known = self.completed >= SERVICE_KNOWN && self.computed_seconds > 0.0;
        known.then(|| self.computed_seconds / self.completed)
    }

    /// Seconds from the order of a replica until it is ready, as it was seen or else is assumed.
    pub(super) fn start_seconds(&self) -> f64 {
        self.start_seconds.unwrap_or(ASSUMED_START_SECONDS)
    }

    /// Notes how many replicas are ordered, and how long those took that are ready by now.
    pub(super) fn note_ordered(&mut self, ordered: i32, sample: &Sample, now: Duration) {
        self.starting.retain(|(_, count)| *count <= ordered);
        if ordered > self.ordered && ordered > sample.ready {
            self.starting.push_back((now.saturating_sub(sample.elapsed), ordered));
        }
        self.ordered = ordered;
        while let Some((since, _)) = self.starting.front().filter(|(_, count)| *count <= sample.ready) {
            let took = now.saturating_sub(*since).as_secs_f64();
            self.start_seconds = Some(self.start_seconds.map_or(took, |before| f64::midpoint(before, took)));
            self.starting.pop_front();
        }
    }

    /// How long the load must have been lower before replicas go.
    fn down(&self, policy: &Policy) -> Duration {
        let learned = self.start_seconds.map(Duration::from_secs_f64);
        let learned = || learned.map_or(DOWN_UNKNOWN, |down| down.clamp(DOWN_LEAST, DOWN_MOST));
        policy.down.unwrap_or_else(learned).max(policy.late)
    }

    /// Arrivals of a window: the calm one's, unless a shorter one's are more than chance explains. `None` until half a
    /// calm window was seen.
    pub(super) fn arrivals(&self, policy: &Policy, window: Duration, now: Duration) -> Option<Arrivals> {
        let stable = policy.stable.as_secs_f64();
        let (count, seconds) = self.count_arrivals(policy.stable, now);
        if seconds < stable / 2.0 {
            return None;
        }
        let calm = count / seconds;
        let (count, seconds) = self.count_arrivals(window, now);
        let greatest = if seconds > 0.0 { calm.max(count / seconds) } else { calm };
        let (count, seconds) = self.lasting_arrivals(window, now);
        if window < policy.stable && count - CHANCE_DEVIATIONS * count.sqrt() > calm * seconds {
            let lasting = count / seconds;
            return Some(Arrivals { greatest, lasting, expected: lasting, surge: true });
        }
        let earlier = |windows: u32| {
            let (count, seconds) = self.count_arrivals(policy.stable, now.saturating_sub(windows * policy.stable));
            (seconds >= stable / 2.0).then(|| count / seconds)
        };
        // Growth that lasts: after a step, one of the two differences is small.
        let growth = match (earlier(1), earlier(2)) {
            (Some(before), Some(long_before)) => (calm - before).min(before - long_before).max(0.0),
            _ => 0.0,
        };
        // A mean stands for the middle of its window.
        let ahead = self.start_seconds() + stable / 2.0;
        let expected = calm + growth * ahead / stable;
        Some(Arrivals { greatest, lasting: calm, expected, surge: false })
    }

    /// The same of the window that ends now, without the sample that had most: many requests that come in one moment are
    /// load, and no rise of what arrives.
    fn lasting_arrivals(&self, window: Duration, now: Duration) -> (f64, f64) {
        let (count, seconds) = self.count_arrivals(window, now);
        let recent = self.samples.iter().rev().take_while(|(t, _)| *t + window > now);
        let known = recent.filter_map(|(_, sample)| Some((sample.arrived?, sample.elapsed.as_secs_f64())));
        let most = known.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        (count - most.0, seconds - most.1)
    }

    /// Requests that arrived in the `window` that ended at `end`, and the seconds of it of which that is known.
    fn count_arrivals(&self, window: Duration, end: Duration) -> (f64, f64) {
        let within = self.samples.iter().rev().skip_while(|(t, _)| *t > end).take_while(|(t, _)| *t + window > end);
        let known = within.filter_map(|(_, sample)| Some((sample.arrived?, sample.elapsed.as_secs_f64())));
        known.fold((0.0, 0.0), |(count, seconds), (n, elapsed)| (count + n, seconds + elapsed))
    }

    pub(super) fn capacity(&self) -> Option<f64> {
        self.capacity
    }

    pub(super) fn take_in(&mut self, policy: &Policy, sample: Sample, now: Duration) {
        self.was_ready |= sample.ready > 0;
        self.capacity = sample.capacity.or(self.capacity);
        // What is not known may have been a request; and who waits for the first replica asks.
        let unknown = sample.silent || sample.unheard || sample.ready == 0;
        if sample.load != Some(0.0) || sample.arrived != Some(0.0) || unknown {
            self.last_asked = now;
        }
        if sample.busy_seconds > 0.0 {
            let fade = (-sample.finished / RATE_MEMORY).exp();
            self.finished = self.finished * fade + sample.finished;
            self.busy_seconds = self.busy_seconds * fade + sample.busy_seconds;
            self.busy_tokens = self.busy_tokens * fade + sample.busy_tokens;
        }
        if sample.computed_seconds > 0.0 {
            let fade = (-sample.elapsed.as_secs_f64() / SERVICE_MEMORY_SECONDS).exp();
            self.completed = self.completed * fade + sample.completed;
            self.computed_seconds = self.computed_seconds * fade + sample.computed_seconds;
        }
        self.samples.push_back((now, sample));
        let kept = TREND_WINDOWS * policy.stable;
        while self.samples.front().is_some_and(|(t, _)| *t + kept <= now) {
            self.samples.pop_front();
        }
    }

    /// The samples of the last `window`; `None` when the newest sample does not know the load.
    pub(super) fn look_back(&self, window: Duration, now: Duration) -> Option<Seen> {
        let newest = &self.samples.back()?.1;
        newest.load?;
        let (mut sum, mut count) = (0.0, 0.0);
        for load in self.samples.iter().rev().take_while(|(t, _)| *t + window > now).filter_map(|(_, s)| s.load) {
            sum += load;
            count += 1.0;
        }
        Some(Seen { load: sum / count, ready: newest.ready })
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

    /// Keeps the greatest wishes of the down window. The first call stands for the unknown past.
    pub(super) fn remember_wish(&mut self, policy: &Policy, wish: i32, now: Duration) {
        while self.wishes.back().is_some_and(|(_, w)| *w <= wish) {
            self.wishes.pop_back();
        }
        self.wishes.push_back((now, wish));
        let down = self.down(policy);
        while self.wishes.len() > 1 && self.wishes.front().is_some_and(|(t, _)| *t + down <= now) {
            self.wishes.pop_front();
        }
    }

    pub(super) fn greatest_wish(&self) -> Option<i32> {
        self.wishes.front().map(|(_, w)| *w)
    }
}

//! How fast requests complete: a moving average of the time between completions while busy.

use std::time::Duration;

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// Times are durations since any fixed moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompletionRate {
    since: Option<Duration>,
    seconds: Option<f64>,
}

impl CompletionRate {
    /// Work started after nothing had run.
    pub fn started(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// A request completed; `idle` when it was the last one.
    pub fn completed(&mut self, now: Duration, idle: bool) {
        if let Some(since) = self.since {
            let interval = now.saturating_sub(since).as_secs_f64();
            self.seconds = Some(self.seconds.map_or(interval, |old| old + NEWEST * (interval - old)));
        }
        self.since = (!idle).then_some(now);
    }

    /// Completions per second, once one was seen.
    pub fn per_second(&self) -> Option<f64> {
        self.seconds.map(|seconds| 1.0 / seconds.max(1e-3))
    }

    /// Seconds until a place is free when `waiting` requests wait already: 1 to 60.
    pub fn retry_after(&self, waiting: usize) -> u64 {
        let seconds = self.per_second().map_or(1.0, |rate| ((waiting + 1) as f64 / rate).ceil());
        seconds.clamp(1.0, 60.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_no_slowness() {
        let at = Duration::from_secs;
        let mut rate = CompletionRate::default();
        assert_eq!((rate.per_second(), rate.retry_after(100)), (None, 1));
        rate.started(at(10));
        rate.completed(at(12), true);
        rate.started(at(1000));
        rate.completed(at(1002), true);
        assert!((rate.per_second().unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn retry_after_is_the_time_to_work_off_the_queue_within_bounds() {
        let mut rate = CompletionRate::default();
        rate.started(Duration::ZERO);
        for i in 1..50 {
            rate.completed(Duration::from_millis(500 * i), false);
        }
        assert_eq!(rate.retry_after(0), 1);
        assert_eq!(rate.retry_after(8), 5);
        assert_eq!(rate.retry_after(10_000), 60);
    }
}

//! How many events happen in a second, of late. Pure.

use std::time::Duration;

/// Over how much time events are averaged, in seconds.
const MEMORY_SECONDS: f64 = 30.0;
/// Events after which their rate means something.
const KNOWN: f64 = 2.0;

/// A rate that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// Events, those of long ago counted less.
    events: f64,
    /// Seconds, likewise.
    seconds: f64,
    last: Option<Duration>,
}

impl Rate {
    /// Something happened.
    pub(super) fn note(&mut self, now: Duration) {
        self.fade(now);
        self.events += 1.0;
    }

    fn fade(&mut self, now: Duration) {
        let elapsed = self.last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        let keep = (-elapsed / MEMORY_SECONDS).exp();
        self.events *= keep;
        self.seconds = self.seconds * keep + MEMORY_SECONDS * (1.0 - keep);
        self.last = Some(now);
    }

    /// Events a second; `None` until enough were seen.
    pub(super) fn per_second(mut self, now: Duration) -> Option<f64> {
        self.fade(now);
        (self.events >= KNOWN && self.seconds >= 0.1).then(|| self.events / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_silence_lowers_it() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(Duration::ZERO), None);
        for n in 0..200 {
            rate.note(Duration::from_millis(250 * n));
        }
        let now = Duration::from_secs(50);
        let steady = rate.per_second(now).unwrap();
        assert!((3.8..4.3).contains(&steady), "{steady}");
        let later = rate.per_second(now + Duration::from_secs(30)).unwrap();
        assert!(later < steady / 2.0, "{later}");
        assert_eq!(rate.per_second(now + Duration::from_secs(1000)), None);
    }
}

//! Whether a failed attempt is made again, and how long its replica rests meanwhile. Pure.

use std::time::Duration;

/// How an attempt failed before the first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No connection: the replica has seen nothing of the request.
    Unreachable,
    /// The connection broke, or what came back is no HTTP.
    BrokeOff,
    /// What came back is HTTP, but not of a model server.
    Rubbish,
    /// The replica is full.
    Full {
        /// What it says about when to come again.
        retry_after_seconds: Option<u64>,
    },
    /// The replica is leaving, or not ready yet.
    Leaving {
        /// What it says about when to come again.
        retry_after_seconds: Option<u64>,
    },
    /// The replica could not answer.
    Failed,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Try again, elsewhere if that is possible; nothing new goes to this replica for a while.
    Again {
        /// How long.
        rest: Duration,
    },
    /// Enough: the client gets what there is.
    PassOn,
}

/// Attempts that broke off or failed, after which the request itself is taken to be the cause.
const MOST_FAILURES: u32 = 3;
/// Rest of a replica that cannot be reached or broke off: the watch will soon know more.
pub(crate) const REPLICA_REST: Duration = Duration::from_secs(1);
/// Bounds of the rest of a replica that is full. An answer from it ends the rest early.
const FULL_REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Rest of a replica that is leaving: its endpoint lags.
const LEAVING_REST: Duration = Duration::from_secs(5);

/// What was tried for one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    tried: Vec<String>,
    attempts: u32,
    failures: u32,
}

impl History {
    /// Of a request whose answer `pod` has broken off.
    pub(crate) fn after(pod: &str) -> Self {
        Self { tried: vec![pod.to_owned()], ..Self::default() }
    }

    /// Replicas that have failed it.
    pub(crate) fn tried(&self) -> &[String] {
        &self.tried
    }

    /// Whether there was an attempt.
    pub(crate) fn has_tried(&self) -> bool {
        self.attempts > 0
    }

    /// How many there were.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Notes a failed attempt at `pod`; `spent` says that the time for waiting is over.
    pub(crate) fn step(&mut self, pod: &str, kind: &Kind, spent: bool) -> Step {
        self.attempts += 1;
        let full = matches!(kind, Kind::Full { .. });
        if !full && !self.tried.iter().any(|tried| tried == pod) {
            self.tried.push(pod.to_owned());
        }
        self.failures += u32::from(matches!(kind, Kind::BrokeOff | Kind::Rubbish | Kind::Failed));
        if spent || self.failures >= MOST_FAILURES {
            return Step::PassOn;
        }
        let rest = match kind {
            Kind::Unreachable | Kind::BrokeOff | Kind::Rubbish => REPLICA_REST,
            Kind::Full { retry_after_seconds } => {
                let told = Duration::from_secs(retry_after_seconds.unwrap_or(1));
                told.clamp(FULL_REST.0, FULL_REST.1)
            }
            Kind::Leaving { retry_after_seconds: None | Some(0) } => LEAVING_REST,
            Kind::Leaving { retry_after_seconds: Some(seconds) } => Duration::from_secs(*seconds).min(LEAVING_REST),
            Kind::Failed => Duration::ZERO,
        };
        Step::Again { rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_breaks_every_replica_is_given_up() {
        let mut history = History::default();
        assert_eq!(history.step("a", &Kind::BrokeOff, false), Step::Again { rest: REPLICA_REST });
        assert_eq!(history.step("b", &Kind::Failed, false), Step::Again { rest: Duration::ZERO });
        assert_eq!(history.step("c", &Kind::Rubbish, false), Step::PassOn);
        assert_eq!((history.tried().len(), history.attempts()), (3, 3));
    }

    #[test]
    fn what_a_replica_never_saw_is_tried_until_the_time_is_over() {
        let mut history = History::default();
        for _ in 0..50 {
            assert!(matches!(history.step("a", &Kind::Unreachable, false), Step::Again { .. }));
            let leaving = Kind::Leaving { retry_after_seconds: Some(0) };
            assert_eq!(history.step("b", &leaving, false), Step::Again { rest: LEAVING_REST });
        }
        assert_eq!(history.tried(), ["a", "b"]);
        assert_eq!(history.step("a", &Kind::Unreachable, true), Step::PassOn);
    }

    #[test]
    fn a_full_replica_rests_as_it_says_within_bounds_and_has_not_failed() {
        let mut history = History::default();
        for (told, expected) in [(None, 1000), (Some(0), 100), (Some(2), 2000), (Some(900), 5000)] {
            let rest = Duration::from_millis(expected);
            assert_eq!(history.step("a", &Kind::Full { retry_after_seconds: told }, false), Step::Again { rest });
        }
        assert!(history.tried().is_empty() && history.has_tried());
    }
}

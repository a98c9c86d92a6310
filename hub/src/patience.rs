//! How long an answer is waited for, and how often a question is asked again.

use std::time::Duration;

use crate::HubError;

/// Time limits and pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Questions without an answer until it is given up; at least 1. What was downloaded meanwhile starts the
    /// count anew.
    pub attempts: u32,
    /// Pause behind the first failure; each is twice the one before.
    pub first_pause: Duration,
    /// The longest pause, also where the hub asks for a longer one.
    pub longest_pause: Duration,
    /// For a connection to stand.
    pub connect_timeout: Duration,
    /// For the next bytes of an answer.
    pub read_timeout: Duration,
    /// For the whole of an answer that is not a download.
    pub answer_timeout: Duration,
}

impl Patience {
    /// For a process that has nothing else to do than to fetch.
    pub const FETCH: Self = Self {
        attempts: 8,
        first_pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(30),
        answer_timeout: Duration::from_secs(120),
    };

    /// For a look on behalf of somebody who asks again by himself.
    pub const LOOK: Self = Self {
        attempts: 2,
        first_pause: Duration::from_millis(250),
        longest_pause: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(3),
        read_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(15),
    };

    pub(crate) fn pauses(&self) -> Pauses {
        Pauses { patience: *self, failures: 0 }
    }

    /// Asks until there is an answer or it is given up.
    pub(crate) async fn again<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        what: &str,
        mut once: impl FnMut() -> F,
    ) -> Result<T, HubError> {
        let mut pauses = self.pauses();
        loop {
            match once().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => pauses.after(what, failure).await?,
            }
        }
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The next may succeed.
    Passing {
        /// What happened.
        reason: String,
        /// The pause that the hub asks for.
        pause: Option<Duration>,
    },
    /// The next would fail as well.
    Lasting(HubError),
}

impl Failure {
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), pause: None }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Lasting(error)
    }
}

/// The pauses between attempts, ever longer.
pub(crate) struct Pauses {
    patience: Patience,
    failures: u32,
}

impl Pauses {
    /// Forgets the failures so far.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits, or gives up.
    pub async fn after(&mut self, what: &str, failure: Failure) -> Result<(), HubError> {
        let (reason, asked_for) = match failure {
            Failure::Lasting(error) => return Err(error),
            Failure::Passing { reason, pause } => (reason, pause),
        };
        self.failures += 1;
        if self.failures >= self.patience.attempts {
            return Err(HubError::Unreachable { what: what.to_owned(), attempts: self.failures, reason });
        }
        let pause = asked_for.unwrap_or_else(|| self.pause());
        tracing::warn!(what, reason, failures = self.failures, pause_ms = pause.as_millis() as u64, "asked again");
        tokio::time::sleep(pause.min(self.patience.longest_pause)).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.patience.first_pause.saturating_mul(1 << doublings).min(self.patience.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Patience::FETCH.pauses();
        let mut seconds = Vec::new();
        for failures in 1..=9 {
            pauses.failures = failures;
            seconds.push(pauses.pause().as_secs_f64());
        }
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        pauses.failures = u32::MAX;
        assert_eq!(pauses.pause(), Patience::FETCH.longest_pause);
    }
}

//! What a pod got lately, beside what the others got. Pure.

use std::time::Duration;

/// No pod gets more than this times the mean for the sake of its pictures.
pub(super) const MOST: f64 = 1.25;
/// So many requests to each pod are remembered: enough that one more hardly counts, few enough that a change of what is
/// asked about shows within seconds under load.
const REMEMBERED: f64 = 64.0;
/// A pod begins with so many: the questions about the first picture of a conversation stay together at first.
const AT_FIRST: f64 = 16.0;
/// What is not worth a picture's move: so many requests in flight, whatever the others have.
const LITTLE: f64 = 0.1;
/// Over about so long a time what is in flight is averaged.
const SECONDS: f64 = 20.0;

/// What a pod got lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// Requests, those of long ago counting less.
    pub requests: f64,
    /// Requests in flight, averaged over the last seconds: what it computes, whatever a request takes.
    pub computing: f64,
}

impl Recent {
    /// Of all pods; of none, what a pod begins with.
    pub fn mean(all: impl Iterator<Item = Self>) -> Self {
        let (mut count, mut sum) = (0_u32, Self { requests: 0.0, computing: 0.0 });
        for one in all {
            count += 1;
            sum = Self { requests: sum.requests + one.requests, computing: sum.computing + one.computing };
        }
        if count == 0 {
            return Self { requests: AT_FIRST, computing: 0.0 };
        }
        let count = f64::from(count);
        Self { requests: sum.requests / count, computing: sum.computing / count }
    }

    /// Whether it may get one more, beside the `mean` of all.
    pub fn may_take(&self, mean: Self) -> bool {
        self.requests < MOST * mean.requests && self.computing <= MOST * mean.computing + LITTLE
    }

    /// Time passes with so many requests in flight.
    pub fn pass(&mut self, time: Duration, in_flight: u32) {
        let kept = (-time.as_secs_f64() / SECONDS).exp();
        self.computing = self.computing * kept + f64::from(in_flight) * (1.0 - kept);
    }
}

/// One of them is given a request: once there are enough to remember, each forgets its part of one.
pub(super) fn given<'a>(all: impl Iterator<Item = &'a mut Recent>) {
    let all: Vec<_> = all.collect();
    let sum: f64 = all.iter().map(|one| one.requests).sum();
    if sum >= REMEMBERED * all.len() as f64 {
        let kept = (sum - 1.0) / sum;
        for one in all {
            one.requests *= kept;
        }
    }
}

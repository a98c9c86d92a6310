//! How many replicas the arrivals need, whatever waits at the moment.

use super::{memory::Arrivals, round_up};

/// Room above the mean, in square roots of the places that arrivals take: requests come by chance, and a greater service
/// needs relatively less of it (the square-root staffing rule of Halfin and Whitt, Operations Research 29, 1981).
const ROOM: f64 = 0.9;
/// How many times the steady need may be ordered to work off what waits.
const MOST: f64 = 1.5;

/// What arrives, and what a replica does about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Need {
    /// Requests that arrive in a second.
    pub arrivals: Arrivals,
    /// Requests that a replica completes in a second when all its places are taken.
    pub rate: f64,
    /// Requests that a replica computes at the same time.
    pub places: f64,
}

impl Need {
    /// Replicas that complete what arrives, and what is expected to, with room for chance; for mere expectation no more
    /// than may be ordered.
    pub(super) fn steady(&self) -> i32 {
        self.complete(self.arrivals.lasting).max(self.complete(self.arrivals.expected).min(self.most()))
    }

    /// The same where answers are shorter now than those by which this rate was learnt: what is `present`, but no less than
    /// half of the `ready` replicas, as prompts are work as well. If half is too few, requests wait, which teaches the rate
    /// anew.
    pub(super) fn steady_or(&self, present: &Self, ready: i32) -> i32 {
        present.steady().max(self.steady().min((ready + 1) / 2))
    }

    /// Replicas that complete so many requests a second, with room for chance.
    fn complete(&self, per_second: f64) -> i32 {
        let bare = per_second / self.rate;
        round_up(bare + ROOM * (bare / self.places).sqrt())
    }

    /// The most that may be ordered for these arrivals.
    pub(super) fn most(&self) -> i32 {
        round_up(MOST * self.arrivals.greatest / self.rate)
    }

    /// Replicas for the load that there will be when a replica ordered now has started: what arrives beyond what the
    /// ready ones complete piles up until then.
    pub(super) fn ahead(&self, load: f64, ready: i32, per_replica: f64, start_seconds: f64) -> i32 {
        let grows = (self.arrivals.lasting - self.rate * f64::from(ready)).max(0.0);
        if grows > 0.0 { round_up((load + grows * start_seconds) / per_replica).min(self.most()) } else { 0 }
    }
}

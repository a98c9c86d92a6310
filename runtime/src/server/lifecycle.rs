//! Where the server stands between start and exit.
//!
//! Loading → ready → draining (not ready, but still serving, because routes lag) → closed (new
//! requests are refused) → aborted (running answers are cut).

use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

/// A stage of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The model is not loaded yet.
    Loading,
    /// Serves.
    Ready,
    /// Serves, but asks not to be routed to.
    Draining,
    /// Refuses new requests and finishes the running ones.
    Closed,
}

impl Phase {
    /// The word in the body of `/ready`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining | Self::Closed => "draining",
        }
    }
}

/// The present phase, and the last deadline.
#[derive(Debug)]
pub struct Lifecycle {
    phase: AtomicU8,
    abort: CancellationToken,
}

impl Lifecycle {
    /// Starts in [`Phase::Loading`]. `abort` cuts the running answers.
    pub fn new(abort: CancellationToken) -> Self {
        Self { phase: AtomicU8::new(Phase::Loading as u8), abort }
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Ready,
            2 => Phase::Draining,
            _ => Phase::Closed,
        }
    }

    /// Goes on to a later phase; an earlier one is ignored, so that a load that ends during
    /// shutdown cannot make the server ready again.
    pub fn advance(&self, to: Phase) {
        self.phase.fetch_max(to as u8, Ordering::AcqRel);
    }

    /// Cancelled when running answers must end.
    pub fn aborted(&self) -> &CancellationToken {
        &self.abort
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_only_goes_forward() {
        let life = Lifecycle::new(CancellationToken::new());
        assert_eq!(life.phase(), Phase::Loading);
        for phase in [Phase::Ready, Phase::Draining, Phase::Closed] {
            life.advance(phase);
            assert_eq!(life.phase(), phase);
        }
        life.advance(Phase::Ready);
        assert_eq!(life.phase(), Phase::Closed);
    }
}

//! Where the gateway stands between start and exit: serves → draining (not ready, but still accepting, because
//! endpoints lag) → closed (new requests are refused, open answers go on) → aborted.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Time in which endpoints and their readers learn that this gateway leaves.
pub const ENDPOINT_LAG: Duration = Duration::from_secs(5);

/// The stages.
#[derive(Clone, Debug, Default)]
pub struct Life {
    draining: CancellationToken,
    closed: CancellationToken,
    aborted: CancellationToken,
}

impl Life {
    /// No new requests are wanted; those that come are served.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// New requests are refused.
    pub fn refuses(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Cancelled when the listener is to close.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Cancelled when open answers are to be cut.
    pub fn aborted(&self) -> &CancellationToken {
        &self.aborted
    }

    /// Goes through the stages from `shutdown` on: it accepts for `lag`, and then open answers get `timeout`.
    pub async fn end(&self, shutdown: CancellationToken, lag: Duration, timeout: Duration) {
        shutdown.cancelled().await;
        self.draining.cancel();
        tracing::info!("draining");
        tokio::time::sleep(lag).await;
        self.closed.cancel();
        tokio::time::sleep(timeout).await;
        self.aborted.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_accepts_while_endpoints_lag_and_cuts_nothing_before_its_time() {
        let (life, shutdown) = (Life::default(), CancellationToken::new());
        let ending = tokio::spawn({
            let (life, shutdown) = (life.clone(), shutdown.clone());
            async move { life.end(shutdown, Duration::from_millis(100), Duration::from_millis(100)).await }
        });
        tokio::task::yield_now().await;
        assert!(!life.is_draining());
        shutdown.cancel();
        life.draining.cancelled().await;
        assert!(!life.refuses());
        life.closed().cancelled().await;
        assert!(!life.aborted().is_cancelled());
        ending.await.unwrap();
        assert!(life.aborted().is_cancelled());
    }
}

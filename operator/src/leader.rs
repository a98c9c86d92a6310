//! Leader election by one Lease. Only the leader writes; who loses the lease ends the process.

use std::{future::Future, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Name of the Lease.
const LEASE: &str = "vlm-operator";
/// How long a lease holds after it was renewed, in seconds.
const HOLDS_SECONDS: u64 = 10;
/// How long before its end it is renewed, in seconds.
const RENEW_BEFORE_SECONDS: u64 = 6;
const RETRY: Duration = Duration::from_secs(1);

/// Why leading ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Somebody else leads, or the lease could not be renewed in time.
    #[error("the lease was lost")]
    Lost,
    /// The leader's work ended by itself.
    #[error("the leader's work ended")]
    WorkEnded,
}

/// Where the lease is, and who asks for it.
#[derive(Clone)]
pub struct Candidate {
    /// For watches.
    pub client: Client,
    /// Has short time limits, so that a hanging API server cannot hide a lost lease.
    pub hasty_client: Client,
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of this process, unlike any other's.
    pub identity: String,
}

impl Candidate {
    /// Waits for the lease, then does `work` for as long as the lease is held. At `shutdown` the
    /// work's own token is cancelled, its end awaited, and the lease given back.
    pub async fn lead<W: Future<Output = ()>>(
        &self,
        shutdown: CancellationToken,
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Result<(), LeaderError> {
        let Some(lease) = self.acquire(&shutdown).await else { return Ok(()) };
        info!(identity = self.identity, "leading");
        let token = CancellationToken::new();
        let mut work = std::pin::pin!(work(token.clone()));
        let result = tokio::select! {
            () = &mut work => return Err(LeaderError::WorkEnded),
            () = lost(&lease) => Err(LeaderError::Lost),
            () = shutdown.cancelled() => Ok(()),
        };
        token.cancel();
        if result.is_ok() {
            work.await;
            if let Err(error) = lease.release().await {
                warn!(%error, "lease not given back; it runs out by itself");
            }
        }
        result
    }

    /// The lease, or `None` when it is time to go.
    async fn acquire(&self, shutdown: &CancellationToken) -> Option<LeaseManager> {
        loop {
            let lease = tokio::select! {
                () = shutdown.cancelled() => return None,
                lease = self.manager() => lease,
            };
            let error = match lease {
                Ok(lease) => tokio::select! {
                    () = shutdown.cancelled() => return None,
                    changed = lease.changed() => match changed {
                        Ok(true) => return Some(lease),
                        Ok(false) => continue,
                        Err(error) => error,
                    },
                    // The manager sleeps until the lease runs out; one given back is free at once.
                    () = self.given_back() => continue,
                },
                Err(error) => error,
            };
            warn!(error = &error as &dyn std::error::Error, "lease not reached");
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(RETRY) => {}
            }
        }
    }

    async fn manager(&self) -> Result<LeaseManager, LeaseManagerError> {
        LeaseManagerBuilder::new(self.hasty_client.clone(), LEASE)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            .with_field_manager(format!("vlm-operator-{}", self.identity))
            .with_duration(HOLDS_SECONDS)
            .with_grace(RENEW_BEFORE_SECONDS)
            .build()
            .await
    }

    /// Ends when the lease, after somebody held it, has no holder any more.
    async fn given_back(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut seen = std::pin::pin!(watcher::watch_object(api, LEASE).default_backoff());
        let mut held = false;
        while let Some(lease) = seen.next().await {
            let Ok(lease) = lease else { continue };
            let holder = lease.and_then(|l| l.spec).and_then(|s| s.holder_identity);
            if held && holder.is_none() {
                return;
            }
            held |= holder.is_some();
        }
        std::future::pending::<()>().await;
    }
}

/// Keeps the lease renewed; ends when it is lost.
async fn lost(lease: &LeaseManager) {
    let mut failing_since = None;
    loop {
        match lease.changed().await {
            Ok(true) => failing_since = None,
            Ok(false) => return,
            Err(error) => {
                let since = *failing_since.get_or_insert_with(Instant::now);
                warn!(error = &error as &dyn std::error::Error, "lease not renewed");
                if since.elapsed() + RETRY > Duration::from_secs(RENEW_BEFORE_SECONDS) {
                    return;
                }
                sleep(RETRY).await;
            }
        }
    }
}

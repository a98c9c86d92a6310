//! The one thing that the gateway writes: `status.wake.requestedAt` of a model without replicas, for which requests
//! wait. The operator reads it. Effects: writes.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{Timestamp, Unit};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::{debug, info, warn};
use vlm_crds::VisionModel;

use crate::{desk::Desk, metrics::Metrics, routes::ModelId};

/// Field manager of the write.
const MANAGER: &str = "vlm-gateway";
/// So many requests to the API server under way are enough.
const AT_ONCE: usize = 16;

/// How often the connection to the API server is used. Unused for longer it is closed, and the first request for a model
/// that sleeps would wait for a new one: for names, certificates and keys.
const KEEP_WARM: Duration = Duration::from_secs(30);

/// Runs as long as the process. Whoever is slow to be asked for keeps no other waiting.
pub async fn run(client: Client, desk: Arc<Desk>, metrics: Metrics) {
    tokio::join!(keep_warm(&client), wake_sleepers(&client, &desk, &metrics));
}

async fn keep_warm(client: &Client) {
    loop {
        if let Err(error) = client.apiserver_version().await {
            debug!(error = &error as &dyn std::error::Error, "the API server does not answer");
        }
        tokio::time::sleep(KEEP_WARM).await;
    }
}

async fn wake_sleepers(client: &Client, desk: &Desk, metrics: &Metrics) {
    let mut asking = FuturesUnordered::new();
    loop {
        tokio::select! {
            sleepers = desk.sleepers(), if asking.len() < AT_ONCE => {
                asking.extend(sleepers.into_iter().map(|model| wake(client, desk, metrics, model)));
            }
            Some(()) = asking.next() => {}
        }
    }
}

async fn wake(client: &Client, desk: &Desk, metrics: &Metrics, model: ModelId) {
    let asked = ask(client, &model).await;
    metrics.asked_to_wake(asked.is_ok());
    match asked {
        Ok(()) => info!(%model, "asked for a replica"),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, %model, "asking for a replica failed");
            desk.not_asked(&model);
        }
    }
}

async fn ask(client: &Client, model: &ModelId) -> Result<(), kube::Error> {
    let now = Timestamp::now();
    let patch = json!({
        "apiVersion": VisionModel::api_version(&()),
        "kind": VisionModel::kind(&()),
        "metadata": {"name": model.name},
        "status": {"wake": {"requestedAt": now.round(Unit::Millisecond).unwrap_or(now)}},
    });
    let api: Api<VisionModel> = Api::namespaced(client.clone(), &model.namespace);
    api.patch_status(&model.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await.map(drop)
}

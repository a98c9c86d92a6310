//! What every reconcile and every tick needs: clients, caches, settings and memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use kube::{Client, ResourceExt, runtime::events::Recorder};
use vlm_crds::{VisionModel, status::VisionModelStatus};

use crate::{
    apply::Ledger,
    autoscaler::table::{Moment, Table, key},
    metrics::Metrics,
    names::Names,
    observe::{Stores, gateways::Gateways, gpus::Gpus},
    plan::Settings,
    revision::Revisions,
    status::Remembered,
};

/// Shared by all parts of the leader.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The caches.
    pub stores: Stores,
    /// GPU types, and what the nodes have.
    pub gpus: Arc<Gpus>,
    /// Settings of the operator.
    pub settings: Settings,
    /// Base URL of a Prometheus server.
    pub prometheus_url: Option<String>,
    /// Where the gateways are, where there are to be any.
    pub gateways: Option<Gateways>,
    /// Which model a name means at the gateway.
    pub names: Names,
    /// Client for pods and Prometheus, with a short time limit.
    pub http: reqwest::Client,
    /// Numbers of replicas.
    pub table: Table,
    /// What was applied.
    pub ledger: Ledger,
    /// Writes events.
    pub recorder: Recorder,
    /// The operator's own metrics.
    pub metrics: Metrics,
    /// When the process started.
    pub started: Instant,
    /// What is remembered of each model, by uid.
    pub memories: Memories,
    /// The commits of public models.
    pub revisions: Revisions,
}

impl Context {
    /// The time, in whole seconds where it is a date: that is all that the API server keeps.
    pub fn moment(&self) -> Moment {
        let now = Timestamp::now();
        Moment { now: self.started.elapsed(), time: Timestamp::from_second(now.as_second()).unwrap_or(now) }
    }

    /// Forgets what belongs to models that are gone.
    pub fn forget_all_but(&self, models: &[Arc<VisionModel>]) {
        let keys: HashSet<_> = models.iter().map(|m| key(m)).collect();
        let kept = |namespace: &str, name: &str| keys.contains(&(namespace.to_owned(), name.to_owned()));
        self.table.retain(kept);
        self.ledger.retain(kept);
        let uids: HashSet<_> = models.iter().filter_map(|m| m.uid()).collect();
        self.memories.lock().retain(|uid, _| uids.contains(uid));
        self.revisions.retain(|uid| uids.contains(uid));
    }
}

/// What is remembered of each model.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, ModelMemory>>);

/// What is remembered of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelMemory {
    /// For the next report.
    pub remembered: Remembered,
    /// Failures since the last success.
    pub failures: u32,
    written: Option<(u64, VisionModelStatus)>,
}

impl Memories {
    /// The memory of a model.
    pub fn get(&self, model: &VisionModel) -> ModelMemory {
        model.uid().and_then(|uid| self.lock().get(&uid).cloned()).unwrap_or_default()
    }

    /// Replaces the memory of a model.
    pub fn put(&self, model: &VisionModel, memory: ModelMemory) {
        if let Some(uid) = model.uid() {
            self.lock().insert(uid, memory);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ModelMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelMemory {
    /// The newest status that is known: the cache may lag behind what was just written. Without what a gateway writes
    /// there, so that the two never write over each other.
    pub fn newest_status(&self, model: &VisionModel) -> VisionModelStatus {
        let cached = model.status.clone().unwrap_or_default();
        let newest = match (&self.written, version(model)) {
            (Some((written, status)), Some(cached_version)) if *written > cached_version => status.clone(),
            _ => cached,
        };
        VisionModelStatus { wake: None, ..newest }
    }

    /// Remembers what was written.
    pub fn wrote(&mut self, model: &VisionModel) {
        self.written = version(model).zip(model.status.clone());
    }
}

fn version(model: &VisionModel) -> Option<u64> {
    model.metadata.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(version: &str, generation: i64) -> VisionModel {
        serde_json::from_value(json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
            "metadata": {"name": "tiny", "uid": "u1", "resourceVersion": version},
            "spec": {"model": {"uri": "pvc://weights/tiny"}},
            "status": {"observedGeneration": generation},
        }))
        .unwrap()
    }

    #[test]
    fn a_cache_that_lags_behind_does_not_hide_what_was_written() {
        let mut memory = ModelMemory::default();
        let newest = |memory: &ModelMemory, model: &VisionModel| memory.newest_status(model).observed_generation;
        assert_eq!(newest(&memory, &model("9", 1)), Some(1));
        memory.wrote(&model("10", 2));
        assert_eq!(newest(&memory, &model("9", 1)), Some(2));
        assert_eq!(newest(&memory, &model("11", 3)), Some(3), "somebody else wrote later");
        let mut asked = model("11", 3);
        let wake = serde_json::from_value(json!({"requestedAt": "2026-01-01T00:00:00Z"})).unwrap();
        asked.status.as_mut().unwrap().wake = Some(wake);
        assert_eq!(memory.newest_status(&asked).wake, None, "what is the gateway's stays out of the operator's writes");
    }
}

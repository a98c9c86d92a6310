//! What the cluster says of the models: which there are, where their replicas are, and whether they can answer.
//! [`watch`] reads it, [`catalogue`] finds a model by its name. No request is known here.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kube::ResourceExt;
use vlm_crds::{
    VisionModel,
    status::conditions::{READY, STALLED},
};

use crate::{balance::Endpoint, hold::Bounds};

pub mod catalogue;
pub mod endpoints;
pub mod watch;

use catalogue::Catalogue;

/// Namespace and name of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a model that has no replica to ask will have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has replicas, or they start.
    Awake,
    /// It has none, and one that asks for it wakes it.
    Asleep,
    /// It is switched off: `spec.replicas` is 0.
    Off,
    /// It cannot start until a person changes something.
    Failed {
        /// The reason of the condition.
        reason: String,
        /// What to do.
        message: String,
    },
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which.
    pub id: ModelId,
    /// Seconds since 1970 at which it was made.
    pub created: i64,
    /// Further names.
    pub aliases: Vec<String>,
    /// Whether it can answer.
    pub standing: Standing,
    /// Requests that one replica is given at a time: what it computes, and what may wait for it.
    pub window: u32,
    /// What may wait here, at all gateways together.
    pub bounds: Bounds,
    /// Longest sequence in tokens, where it is known.
    pub max_tokens: Option<usize>,
    /// Whether a stream whose replica breaks off goes on at another one.
    pub migrates: bool,
    /// Time that a replica has for its end.
    pub drain: Duration,
}

impl Route {
    /// Of a model; `None` for one that is being deleted.
    pub fn of(model: &VisionModel) -> Option<Self> {
        if model.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let (scaling, status) = (model.spec.scaling(), model.status.as_ref());
        let resolved = status.and_then(|status| status.resolved.as_ref());
        let computed = resolved.and_then(|r| r.max_concurrency).unwrap_or_else(|| model.spec.max_concurrency());
        let most = scaling.concurrency().unwrap_or(i32::MAX);
        let window = computed.min(most).max(1).saturating_add(scaling.queue_depth());
        let zero = scaling.zero();
        Some(Self {
            id: ModelId { namespace: model.namespace()?, name: model.name_any() },
            created: model.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            aliases: model.spec.model.aliases.clone(),
            standing: standing(model),
            window: u32::try_from(window).unwrap_or(1),
            bounds: Bounds {
                count: zero.max_held(),
                bytes: zero.max_held_bytes(),
                wait: Duration::from_secs(u64::from(zero.max_wait_seconds())),
            },
            max_tokens: resolved.and_then(|r| r.max_tokens).and_then(|n| usize::try_from(n).ok()),
            migrates: model.spec.migrates(),
            drain: Duration::from_secs(u64::try_from(model.spec.drain_timeout_seconds()).unwrap_or_default()),
        })
    }
}

fn standing(model: &VisionModel) -> Standing {
    if model.spec.replicas == Some(0) {
        return Standing::Off;
    }
    let Some(status) = &model.status else { return Standing::Awake };
    // What is said of a former spec may be mended by now.
    let current = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.observed_generation == model.metadata.generation && c.status == "True"
    };
    let is = |kind: &str| status.conditions.iter().filter(current).find(|c| c.type_ == kind);
    if let Some(stalled) = is(STALLED).filter(|_| is(READY).is_none()) {
        return Standing::Failed { reason: stalled.reason.clone(), message: stalled.message.clone() };
    }
    match &status.replicas {
        Some(replicas) if replicas.desired == 0 => Standing::Asleep,
        _ => Standing::Awake,
    }
}

/// The newest catalogue, for every request.
#[derive(Debug, Default)]
pub struct Routes(RwLock<Arc<Catalogue>>);

impl Routes {
    /// As it is now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn replace(&self, catalogue: Catalogue) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
    }
}

/// The pods of each model that are on their way out.
pub type Leaving = std::collections::HashMap<ModelId, std::collections::BTreeSet<String>>;

/// Endpoints of each model.
pub type Endpoints = std::collections::HashMap<ModelId, Vec<Endpoint>>;

/// The address that a text and a port make.
fn socket(address: &str, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn model(spec: &Value, status: &Value) -> VisionModel {
        let mut whole = json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
            "metadata": {"name": "tiny", "namespace": "shop", "generation": 3,
                         "creationTimestamp": "1970-01-01T00:01:40Z"},
            "spec": {"model": {"uri": "pvc://weights/tiny"}}, "status": status,
        });
        whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn standing(spec: &Value, status: &Value) -> Standing {
        Route::of(&model(spec, status)).unwrap().standing
    }

    #[test]
    fn a_window_is_what_a_replica_computes_and_what_may_wait_for_it() {
        let route = Route::of(&model(&json!({}), &json!({}))).unwrap();
        assert_eq!((route.window, route.created, route.max_tokens), (10, 100, None));
        assert_eq!((route.bounds.count, route.bounds.wait), (256, Duration::from_secs(300)));
        assert!(route.migrates && route.drain == Duration::from_secs(120));
        let spec = json!({"drain": {"timeoutSeconds": 9, "migrate": false},
            "scaling": {"target": {"queueDepth": 1, "concurrency": 4}, "zero": {"maxHeld": 3}}});
        let status = json!({"resolved": {"image": "i", "maxConcurrency": 32, "maxTokens": 512}});
        let route = Route::of(&model(&spec, &status)).unwrap();
        assert_eq!((route.window, route.bounds.count, route.max_tokens), (5, 3, Some(512)));
        assert!(!route.migrates && route.drain == Duration::from_secs(9));
    }

    #[test]
    fn a_model_sleeps_is_off_or_has_failed() {
        let none = json!({"replicas": {"desired": 0, "current": 0, "ready": 0, "updated": 0, "summary": "0/0"}});
        assert_eq!(standing(&json!({}), &json!({})), Standing::Awake);
        assert_eq!(standing(&json!({}), &none), Standing::Asleep);
        assert_eq!(standing(&json!({"replicas": 0}), &none), Standing::Off);
        let condition = |kind: &str, generation: i64| {
            json!({"type": kind, "status": "True", "reason": "WeightsCorrupt", "message": "fetch them again",
                   "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": generation})
        };
        let failed = standing(&json!({}), &json!({"conditions": [condition("Stalled", 3)]}));
        let expected = Standing::Failed { reason: "WeightsCorrupt".to_owned(), message: "fetch them again".to_owned() };
        assert_eq!(failed, expected);
        assert_eq!(standing(&json!({}), &json!({"conditions": [condition("Stalled", 2)]})), Standing::Awake);
        let ready = json!({"conditions": [condition("Stalled", 3), condition("Ready", 3)]});
        assert_eq!(standing(&json!({}), &ready), Standing::Awake);
    }

    #[test]
    fn a_model_that_is_being_deleted_has_no_route() {
        let mut model = model(&json!({}), &json!({}));
        model.metadata.deletion_timestamp = model.metadata.creation_timestamp.clone();
        assert_eq!(Route::of(&model), None);
    }
}

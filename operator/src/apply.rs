//! Writes the children by server-side apply, and only when something differs. Effects: writes.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::{NamespaceResourceScope, api::apps::v1::Deployment};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::Status,
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::info;

use crate::{
    build::{Children, labels},
    fingerprint::fingerprint,
    metrics::Metrics,
    observe::Observed,
};

/// Why a child could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refuses the object as it is.
    #[error("the API server refuses the {kind}: {message}")]
    Refused {
        /// Kind of the child.
        kind: String,
        /// What the API server says.
        message: String,
    },
    /// An object of the same name belongs to somebody else.
    #[error("a {kind} named {name} exists already and belongs to somebody else; delete it or rename the VisionModel")]
    NameTaken {
        /// Kind of the child.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server could not be asked.
    #[error("writing the {kind} {name} failed")]
    Failed {
        /// Kind of the child.
        kind: String,
        /// Its name.
        name: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
}

/// What was last written of each child, and what the API server made of it.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Key, Line>>);

type Key = (String, String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    wanted: String,
    answered: String,
}

impl Ledger {
    /// Forgets the children of models that are gone.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(_, namespace, name), _| keep(namespace, name));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what differs from what is there.
///
/// # Guarantees
/// When nothing differs, nothing is sent. The Deployment comes last, so that its pods find their
/// Service. Returns the Deployment as it is then.
pub async fn apply(
    client: &Client,
    ledger: &Ledger,
    metrics: &Metrics,
    children: &Children,
    observed: &Observed,
) -> Result<Arc<Deployment>, ApplyError> {
    let writer = Writer { client, ledger, metrics };
    writer.put(&children.service, observed.service.as_ref()).await?;
    writer.put(&children.disruption, observed.disruption.as_ref()).await?;
    writer.put(&children.deployment, observed.deployment.as_ref()).await
}

struct Writer<'a> {
    client: &'a Client,
    ledger: &'a Ledger,
    metrics: &'a Metrics,
}

impl Writer<'_> {
    async fn put<K>(&self, wanted: &K, there: Option<&Arc<K>>) -> Result<Arc<K>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let kind = K::kind(&()).into_owned();
        let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
        let key = (kind.clone(), namespace.clone(), name.clone());
        let line = self.ledger.lock().get(&key).cloned();
        let print = fingerprint(wanted);
        if let (Some(line), Some(there)) = (&line, there)
            && line.wanted == print
            && line.answered == content(there.as_ref())
        {
            return Ok(Arc::clone(there));
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let failed = |source| ApplyError::Failed { kind: kind.clone(), name: name.clone(), source: Box::new(source) };
        if line.is_none() && there.is_none() {
            let meta = api.get_metadata_opt(&name).await.map_err(failed)?;
            if meta.is_some_and(|m| !is_ours(&m.metadata, &name)) {
                return Err(ApplyError::NameTaken { kind, name });
            }
        }
        let params = PatchParams::apply(labels::MANAGER).force();
        let answer = match api.patch(&name, &params, &Patch::Apply(wanted)).await {
            Ok(answer) => answer,
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                return Err(ApplyError::Refused { kind, message: status.message });
            }
            Err(source) => return Err(failed(source)),
        };
        self.metrics.wrote(&kind);
        info!(kind, namespace, name, "applied");
        self.ledger.lock().insert(key, Line { wanted: print, answered: content(&answer) });
        Ok(Arc::new(answer))
    }
}

/// Fingerprint of what an apply determines: labels, owners and spec. The rest is written by others.
fn content<K: Resource + Serialize>(object: &K) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let spec = value.get_mut("spec").map(serde_json::Value::take);
    fingerprint(&(object.meta().uid.as_ref(), object.labels(), object.owner_references(), spec))
}

/// Whether an object may be taken over: it belongs to a `VisionModel` of this name. One that was
/// deleted and made again leaves children of its former self for a moment.
fn is_ours(meta: &kube::core::ObjectMeta, name: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.kind == "VisionModel" && owner.name == name)
}

/// Asking again would be answered the same. What a former model of the name has left is about to go: it is being
/// terminated, or its owner cannot be changed without the right to delete it.
fn is_refusal(status: &Status) -> bool {
    const PASSES: [&str; 2] =
        ["because it is being terminated", "cannot set an ownerRef on a resource you can't delete"];
    matches!(status.code, 400 | 403 | 422) && !PASSES.iter().any(|words| status.message.contains(words))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::core::ObjectMeta;

    use super::*;

    #[test]
    fn what_others_write_is_not_compared_and_what_we_write_is() {
        let mut object = Deployment::default();
        object.spec.get_or_insert_default().replicas = Some(1);
        let before = content(&object);
        object.metadata.resource_version = Some("7".to_owned());
        object.status.get_or_insert_default().replicas = Some(1);
        object.annotations_mut().insert("deployment.kubernetes.io/revision".to_owned(), "2".to_owned());
        assert_eq!(content(&object), before);
        object.spec.get_or_insert_default().replicas = Some(2);
        assert_ne!(content(&object), before);
    }

    #[test]
    fn what_a_former_model_has_left_is_no_refusal() {
        let refused = |message: &str| {
            let message = format!("services \"tiny\" is forbidden: {message}");
            is_refusal(&Status { code: 403, message, ..Status::default() })
        };
        assert!(refused("exceeded quota: none"));
        assert!(!refused("cannot set an ownerRef on a resource you can't delete: , <nil>"));
        assert!(!refused("unable to create new content in namespace a because it is being terminated"));
    }

    #[test]
    fn a_strangers_object_is_not_ours() {
        let owned_by = |kind: &str, name: &str| ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        };
        assert!(is_ours(&owned_by("VisionModel", "a"), "a"));
        assert!(!is_ours(&owned_by("VisionModel", "b"), "a"));
        assert!(!is_ours(&owned_by("Application", "a"), "a"));
        assert!(!is_ours(&ObjectMeta::default(), "a"));
    }
}

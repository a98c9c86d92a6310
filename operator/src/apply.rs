//! Writes the children by server-side apply, and only when something differs. Effects: writes.

use std::{
    any::Any,
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

#[derive(Clone, Debug)]
struct Line {
    wanted: String,
    answered: String,
    /// The answer itself, until the watch has come as far: what was reported from it must not be taken back by what
    /// the watch still holds from before.
    ahead: Option<Arc<dyn Any + Send + Sync>>,
}

impl Line {
    /// The newer one of what the watch holds and of what was answered.
    fn newest<K: Resource + Send + Sync + 'static>(&self, there: &Arc<K>) -> Arc<K> {
        let ahead = self.ahead.as_ref().and_then(|ahead| Arc::clone(ahead).downcast::<K>().ok());
        ahead.filter(|ahead| is_behind(there.as_ref(), ahead)).unwrap_or_else(|| Arc::clone(there))
    }
}

impl Ledger {
    /// Forgets the children of models that are gone.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(_, namespace, name), _| keep(namespace, name));
    }

    /// What was written of a child. An answer that the watch has caught up with is let go.
    fn line<K: Resource + Send + Sync + 'static>(&self, key: &Key, there: Option<&Arc<K>>) -> Option<Line> {
        let mut lines = self.lock();
        let line = lines.get_mut(key)?;
        if there.is_some_and(|there| Arc::ptr_eq(&line.newest(there), there)) {
            line.ahead = None;
        }
        Some(line.clone())
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
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let kind = K::kind(&()).into_owned();
        let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
        let key = (kind.clone(), namespace.clone(), name.clone());
        let line = self.ledger.line(&key, there);
        let print = fingerprint(wanted);
        if let Some((line, newest)) = line.as_ref().zip(there).map(|(line, there)| (line, line.newest(there)))
            && line.wanted == print
            && line.answered == content(newest.as_ref())
        {
            return Ok(newest);
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
        let answer = Arc::new(answer);
        let ahead: Arc<dyn Any + Send + Sync> = Arc::clone(&answer) as _;
        let line = Line { wanted: print, answered: content(answer.as_ref()), ahead: Some(ahead) };
        self.ledger.lock().insert(key, line);
        Ok(answer)
    }
}

/// Fingerprint of what an apply determines: labels, owners and spec. The rest is written by others.
fn content<K: Resource + Serialize>(object: &K) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let spec = value.get_mut("spec").map(serde_json::Value::take);
    fingerprint(&(object.meta().uid.as_ref(), object.labels(), object.owner_references(), spec))
}

/// Whether this is an older state of the same object. Versions grow with every write; the API server says so of all of
/// its resources. What is no number is not compared.
fn is_behind<K: Resource>(there: &K, answer: &K) -> bool {
    let version = |object: &K| object.meta().resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    let same = there.meta().uid == answer.meta().uid;
    same && version(there).zip(version(answer)).is_some_and(|(there, answer)| there < answer)
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

    fn at(version: &str) -> Arc<Deployment> {
        let mut object = Deployment::default();
        object.metadata.uid = Some("a".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        Arc::new(object)
    }

    #[test]
    fn what_was_answered_is_the_newest_until_the_watch_has_come_as_far() {
        let ledger = Ledger::default();
        let key = || ("Deployment".to_owned(), "here".to_owned(), "tiny".to_owned());
        let ahead: Arc<dyn Any + Send + Sync> = at("10");
        let line = Line { wanted: String::new(), answered: String::new(), ahead: Some(ahead) };
        ledger.lock().insert(key(), line);
        let newest = |there: &Arc<Deployment>| {
            let newest = ledger.line(&key(), Some(there)).unwrap().newest(there);
            newest.metadata.resource_version.clone().unwrap()
        };
        assert_eq!(newest(&at("9")), "10", "numbers, not letters");
        assert_eq!(newest(&at("9")), "10", "the answer is still there");
        let mut another = (*at("9")).clone();
        another.metadata.uid = Some("b".to_owned());
        assert_eq!(
            ledger.line(&key(), None::<&Arc<Deployment>>).unwrap().newest(&Arc::new(another.clone())).metadata,
            another.metadata
        );
        assert_eq!(newest(&at("11")), "11");
        assert_eq!(newest(&at("9")), "9", "the answer has been let go: a store that was set back is believed");
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

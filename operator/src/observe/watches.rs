//! The watches that fill the caches and say which model to look at again.

use std::fmt::Debug;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::PersistentVolumeClaim};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tracing::warn;

use super::Stores;
use crate::build::labels;

/// Triggers that may wait for a slow reader; a reader that falls behind looks at everything again.
const WAITING_TRIGGERS: usize = 4096;

/// What to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The model of this namespace and name.
    Model(String, String),
    /// The models whose weights are on the claim of this namespace and name.
    Claim(String, String),
    /// Every model.
    All,
}

/// The caches, and the work that fills them.
pub struct Watches {
    /// The caches.
    pub stores: Stores,
    /// What changed; nobody needs to listen.
    pub triggers: broadcast::Sender<Trigger>,
    /// Runs as long as the process.
    pub work: BoxFuture<'static, ()>,
}

/// Sets up the watches, of one namespace or of all.
pub fn watch(client: &Client, namespace: Option<&str>) -> Watches {
    let (triggers, _) = broadcast::channel(WAITING_TRIGGERS);
    let (deployments, deployments_work) = children(client, namespace, &triggers);
    let (services, services_work) = children(client, namespace, &triggers);
    let (disruptions, disruptions_work) = children(client, namespace, &triggers);
    let (pods, pods_work) = children(client, namespace, &triggers);
    let (claims, claims_work) = claims(client, namespace, &triggers);
    let work = [deployments_work, services_work, disruptions_work, pods_work, claims_work];
    Watches {
        stores: Stores { deployments, services, disruptions, pods, claims },
        triggers,
        work: futures::future::join_all(work).map(drop).boxed(),
    }
}

/// An API of one namespace or of all.
pub(crate) fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns))
}

fn children<K>(
    client: &Client,
    namespace: Option<&str>,
    triggers: &broadcast::Sender<Trigger>,
) -> (Store<K>, BoxFuture<'static, ()>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
    let (reader, writer) = reflector::store();
    let events = reflector::reflector(writer, watcher::watcher(api::<K>(client, namespace), config).modify(slim));
    let triggers = triggers.clone();
    let work = forward(events, triggers, |object: &K| {
        let model = object.labels().get(labels::MODEL).or_else(|| object.labels().get(labels::INSPECTS))?;
        Some(Trigger::Model(object.namespace()?, model.clone()))
    });
    (reader, work)
}

type Claim = PartialObjectMeta<PersistentVolumeClaim>;

fn claims(
    client: &Client,
    namespace: Option<&str>,
    triggers: &broadcast::Sender<Trigger>,
) -> (Store<Claim>, BoxFuture<'static, ()>) {
    let (reader, writer) = reflector::store();
    let claims = watcher::watcher(api::<Claim>(client, namespace), watcher::Config::default());
    let events = reflector::reflector(writer, claims.modify(slim));
    let work =
        forward(events, triggers.clone(), |claim: &Claim| Some(Trigger::Claim(claim.namespace()?, claim.name_any())));
    (reader, work)
}

/// Half of an object's size that nothing here reads.
fn slim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn forward<K: Send + Sync + 'static>(
    events: impl futures::Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    triggers: broadcast::Sender<Trigger>,
    of: impl Fn(&K) -> Option<Trigger> + Send + 'static,
) -> BoxFuture<'static, ()> {
    events
        .default_backoff()
        .for_each(move |event| {
            let trigger = match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => of(&object),
                Ok(Event::InitDone) => Some(Trigger::All),
                Ok(Event::Init | Event::InitApply(_)) => None,
                Err(error) => {
                    warn!(%error, "watch broke; it is taken up again");
                    None
                }
            };
            if let Some(trigger) = trigger {
                // An error means that nobody listens: this process does not lead.
                let _ = triggers.send(trigger);
            }
            futures::future::ready(())
        })
        .boxed()
}

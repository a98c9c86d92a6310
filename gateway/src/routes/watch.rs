//! The watches that keep the routes up to date. Effects: reads.

use std::{fmt::Debug, sync::Arc};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use k8s_openapi::{NamespaceResourceScope, api::discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;
use vlm_contract::labels;
use vlm_crds::VisionModel;

use super::{Route, Routes, catalogue::Catalogue, endpoints};
use crate::desk::Desk;

/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// These namespaces alone; none means every one.
    pub namespaces: Vec<String>,
    /// Namespace and name of the gateway's own Service, which tells how many gateways there are.
    pub gateways: Option<(String, String)>,
}

/// The caches.
#[derive(Clone)]
pub struct Watched {
    models: Vec<Store<VisionModel>>,
    slices: Vec<Store<EndpointSlice>>,
    gateways: Option<Store<EndpointSlice>>,
}

impl Watched {
    /// Waits until every cache has been filled once; false when a watch has ended.
    pub async fn filled(&self) -> bool {
        for models in &self.models {
            if models.wait_until_ready().await.is_err() {
                return false;
            }
        }
        for slices in self.slices.iter().chain(&self.gateways) {
            if slices.wait_until_ready().await.is_err() {
                return false;
            }
        }
        true
    }

    fn hand_over(&self, change: Change, routes: &Routes, desk: &Arc<Desk>) {
        match change {
            Change::Models => {
                let all = self.models.iter().flat_map(Store::state);
                routes.replace(Catalogue::new(all.filter_map(|model| Route::of(&model))));
                desk.update_routes(&routes.catalogue());
            }
            Change::Replicas => {
                let all: Vec<_> = self.slices.iter().flat_map(Store::state).collect();
                desk.update_endpoints(&endpoints::of_models(all.iter().map(AsRef::as_ref)));
                desk.update_leaving(endpoints::leaving(all.iter().map(AsRef::as_ref)));
            }
            Change::Gateways => {
                let all: Vec<_> = self.gateways.iter().flat_map(Store::state).collect();
                desk.update_gateways(endpoints::ready(all.iter().map(AsRef::as_ref)));
            }
        }
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Models,
    Replicas,
    Gateways,
}

/// Sets the watches up. The future runs as long as the process, and hands every change over.
pub fn watch(
    client: &Client,
    scope: &Scope,
    routes: Arc<Routes>,
    desk: Arc<Desk>,
) -> (Watched, BoxFuture<'static, ()>) {
    let namespaces: Vec<_> = match scope.namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut changes = Vec::new();
    let (mut models, mut slices) = (Vec::new(), Vec::new());
    for namespace in namespaces {
        let (store, events) = reflect::<VisionModel>(client, namespace, watcher::Config::default(), Change::Models);
        models.push(store);
        changes.push(events);
        let of_models = watcher::Config::default().labels(labels::MODEL);
        let (store, events) = reflect::<EndpointSlice>(client, namespace, of_models, Change::Replicas);
        slices.push(store);
        changes.push(events);
    }
    let gateways = scope.gateways.as_ref().map(|(namespace, service)| {
        let own = watcher::Config::default().labels(&format!("{SERVICE_NAME}={service}"));
        let (store, events) = reflect::<EndpointSlice>(client, Some(namespace), own, Change::Gateways);
        changes.push(events);
        store
    });
    let watched = Watched { models, slices, gateways };
    let all = watched.clone();
    let work = stream::select_all(changes).for_each(move |change| {
        all.hand_over(change, &routes, &desk);
        futures::future::ready(())
    });
    (watched, work.boxed())
}

type Changes = stream::BoxStream<'static, Change>;

fn reflect<K>(client: &Client, namespace: Option<&str>, config: watcher::Config, change: Change) -> (Store<K>, Changes)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> =
        namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let (reader, writer) = reflector::store();
    let slim = |object: &mut K| object.meta_mut().managed_fields = None;
    let events = reflector::reflector(writer, watcher::watcher(api, config).modify(slim));
    (reader, changes(events, change).boxed())
}

fn changes<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    change: Change,
) -> impl Stream<Item = Change> + Send {
    events.default_backoff().filter_map(move |event| {
        let changed = match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => Some(change),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                warn!(%error, "watch broke; it is taken up again");
                None
            }
        };
        futures::future::ready(changed)
    })
}

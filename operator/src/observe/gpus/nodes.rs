//! What the nodes have: their labels, and the devices that they give to pods. Of a node nothing else is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tracing::warn;
use vlm_catalog::{gpu::GpuType, quantity};

use super::Gpus;

/// The nodes by name.
pub type Nodes = BTreeMap<String, Node>;

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Extended resources such as `nvidia.com/gpu`, and how many pods may use at a time in all; none that is 0.
    pub devices: BTreeMap<String, u64>,
}

impl Node {
    /// Whether pods can get a GPU of this type on it, now or later.
    pub fn has(&self, gpu: &GpuType) -> bool {
        self.devices.contains_key(&gpu.resource) && gpu.is_on(&self.labels)
    }
}

impl From<&core::Node> for Node {
    fn from(node: &core::Node) -> Self {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let devices = allocatable.into_iter().flatten().filter_map(|(resource, amount)| {
            let count = quantity::bytes(&amount.0).filter(|count| *count > 0)?;
            is_extended(resource).then(|| (resource.clone(), count))
        });
        Self { labels: node.labels().clone(), devices: devices.collect() }
    }
}

/// Resources of devices have a domain that is not Kubernetes' own.
fn is_extended(resource: &str) -> bool {
    resource.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

pub(super) fn work(gpus: Arc<Gpus>, client: &Client) -> BoxFuture<'static, ()> {
    let mut listed = Nodes::new();
    watcher::watcher(Api::<core::Node>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .for_each(move |event| {
            match event {
                Ok(event) => take_in(&gpus, &mut listed, &event),
                Err(error) => warn!(%error, "the watch of nodes broke; it is taken up again"),
            }
            futures::future::ready(())
        })
        .boxed()
}

/// Takes in an event; `listed` is what a new list has brought so far.
pub(super) fn take_in(gpus: &Gpus, listed: &mut Nodes, event: &Event<core::Node>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(node) => {
            listed.insert(node.name_any(), node.into());
        }
        Event::InitDone => {
            let new = std::mem::take(listed);
            gpus.change_nodes(|nodes| {
                let differs = nodes.as_deref() != Some(&new);
                *nodes = Some(Arc::new(new));
                differs
            });
        }
        // Nodes tell that they are alive every few minutes: only what is kept of them counts.
        Event::Apply(node) => gpus.change_nodes(|nodes| {
            let (name, new) = (node.name_any(), Node::from(node));
            let nodes = nodes.get_or_insert_default();
            let differs = nodes.get(&name) != Some(&new);
            if differs {
                Arc::make_mut(nodes).insert(name, new);
            }
            differs
        }),
        Event::Delete(node) => gpus.change_nodes(|nodes| {
            nodes.as_mut().is_some_and(|nodes| Arc::make_mut(nodes).remove(&node.name_any()).is_some())
        }),
    }
}

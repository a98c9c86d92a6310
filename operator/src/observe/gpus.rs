//! What there is of GPUs in the whole cluster: the types of the catalogue, and what the nodes have. One for the
//! process, whatever namespaces it looks after. Effects: reads.

use std::sync::{Arc, PoisonError, RwLock};

use futures::{FutureExt, Stream, future::BoxFuture, stream};
use kube::Client;
use tokio::sync::watch;
use vlm_catalog::gpu::GpuTypes;
use vlm_crds::VisionModelSpec;

use crate::metrics::Metrics;
use crate::plan::placement::{Catalogue, Wanted};

mod catalogue;
mod nodes;

pub use nodes::{Node, Nodes};

/// Where GPUs are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Namespace of the catalogue.
    pub namespace: String,
    /// Name of the `ConfigMap` that is the catalogue.
    pub config_map: String,
    /// Whether the operator may look at nodes.
    pub nodes: bool,
}

/// What there is of GPUs.
pub struct Gpus {
    catalogue: RwLock<Catalogue>,
    nodes: RwLock<Option<Arc<Nodes>>>,
    changes: watch::Sender<()>,
}

impl Default for Gpus {
    fn default() -> Self {
        Self { catalogue: RwLock::default(), nodes: RwLock::default(), changes: watch::Sender::new(()) }
    }
}

impl Gpus {
    /// The GPU that a spec asks for.
    pub fn wanted(&self, spec: &VisionModelSpec) -> Wanted {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).wanted(spec)
    }

    /// All types, where they are known.
    pub fn types(&self) -> Option<Arc<GpuTypes>> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).types().cloned()
    }

    /// The nodes, where the operator may look at them and has.
    pub fn nodes(&self) -> Option<Arc<Nodes>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An item for every change of types or nodes from now on; changes that come close together are one.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        stream::unfold(self.changes.subscribe(), |mut changes| async move {
            // An error means that the process ends.
            changes.changed().await.ok().map(|()| ((), changes))
        })
    }

    /// Keeps what is known of the catalogue; tells whether that is something else.
    fn set_catalogue(&self, new: Catalogue) -> bool {
        let mut old = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        let differs = *old != new;
        *old = new;
        drop(old);
        if differs {
            self.changes.send_replace(());
        }
        differs
    }

    /// Changes what is known of the nodes; `change` tells whether anything is different.
    fn change_nodes(&self, change: impl FnOnce(&mut Option<Arc<Nodes>>) -> bool) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let differs = change(&mut nodes);
        drop(nodes);
        if differs {
            self.changes.send_replace(());
        }
    }
}

/// Sets up the watches, and the work that keeps them up as long as the process runs.
pub fn watch(client: &Client, sources: &Sources, metrics: &Metrics) -> (Arc<Gpus>, BoxFuture<'static, ()>) {
    let gpus = Arc::new(Gpus::default());
    let mut work = vec![catalogue::work(Arc::clone(&gpus), client, sources, metrics)];
    if sources.nodes {
        work.push(nodes::work(Arc::clone(&gpus), client));
    }
    (gpus, futures::future::join_all(work).map(drop).boxed())
}

#[cfg(test)]
mod tests;

//! Reads the cluster: caches fed by watches, and what they hold about one model. Effects: reads.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{PersistentVolumeClaim, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};

use crate::build::labels;

pub mod gateways;
pub mod gpus;
mod watches;

pub(crate) use watches::api;
pub use watches::{Trigger, Watches, watch};

/// The caches.
#[derive(Clone)]
pub struct Stores {
    /// Deployments of models.
    pub deployments: Store<Deployment>,
    /// Services of models.
    pub services: Store<Service>,
    /// Budgets of models.
    pub disruptions: Store<PodDisruptionBudget>,
    /// Pods of models.
    pub pods: Store<Pod>,
    /// Metadata of every claim.
    pub claims: Store<PartialObjectMeta<PersistentVolumeClaim>>,
}

/// What there is of one model.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its Deployment.
    pub deployment: Option<Arc<Deployment>>,
    /// Its Service.
    pub service: Option<Arc<Service>>,
    /// Its budget.
    pub disruption: Option<Arc<PodDisruptionBudget>>,
    /// Its pods, by name.
    pub pods: Vec<Arc<Pod>>,
    /// The pods that look at its checkpoint, by name.
    pub inspecting: Vec<Arc<Pod>>,
    /// Whether the claim of its weights exists.
    pub claim_exists: bool,
    /// The nodes, where the operator may look at them and has.
    pub nodes: Option<Arc<gpus::Nodes>>,
}

impl Stores {
    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When a watch has ended.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        self.deployments.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.disruptions.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await
    }

    /// What there is of the model `name`, whose weights are on `claim`.
    pub fn observe(&self, namespace: &str, name: &str, claim: Option<&str>) -> Observed {
        Observed {
            deployment: self.deployments.get(&ObjectRef::new(name).within(namespace)),
            service: self.services.get(&ObjectRef::new(name).within(namespace)),
            disruption: self.disruptions.get(&ObjectRef::new(name).within(namespace)),
            pods: self.pods_of(namespace, name),
            inspecting: self.labelled(namespace, labels::INSPECTS, name),
            claim_exists: claim
                .is_some_and(|claim| self.claims.get(&ObjectRef::new(claim).within(namespace)).is_some()),
            nodes: None,
        }
    }

    /// The pods of a model, by name.
    pub fn pods_of(&self, namespace: &str, name: &str) -> Vec<Arc<Pod>> {
        self.labelled(namespace, labels::MODEL, name)
    }

    fn labelled(&self, namespace: &str, label: &str, name: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(label).is_some_and(|model| model == name)
        });
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }
}

/// Whether a pod takes requests: ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// The address of a pod that runs.
pub fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let runs = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    runs.then_some(status.pod_ip.as_deref()).flatten()
}

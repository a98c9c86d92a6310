//! From a [`Plan`] to the child objects: pure, infallible, and the same output for the same plan, so
//! that a restart or an upgrade of the operator changes nothing that the plan doesn't change.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::plan::Plan;

mod deployment;
mod disruption;
mod gpu;
pub mod inspection;
pub mod labels;
mod pod;
mod service;
mod weights;

pub use pod::CONTAINER;
pub use weights::CONTAINER as FETCH_CONTAINER;

/// The objects that a model consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// The pods.
    pub deployment: Deployment,
    /// Their address.
    pub service: Service,
    /// How many of them may be evicted at a time.
    pub disruption: PodDisruptionBudget,
    /// Fingerprint of the pod template; pods carry it as an annotation.
    pub template: String,
}

/// Builds the children, owned by `owner`.
pub fn build(plan: &Plan, owner: &OwnerReference) -> Children {
    let (deployment, template) = deployment::deployment(plan, owner);
    Children {
        deployment,
        service: service::service(plan, owner),
        disruption: disruption::disruption(plan, owner),
        template,
    }
}

fn metadata(plan: &Plan, owner: &OwnerReference) -> ObjectMeta {
    ObjectMeta {
        name: Some(plan.name.clone()),
        namespace: Some(plan.namespace.clone()),
        labels: Some(labels::all(&plan.name)),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;

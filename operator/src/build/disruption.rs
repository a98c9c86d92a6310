//! The budget that lets node drains take one pod at a time, and broken ones always.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::{labels, metadata};
use crate::plan::Plan;

pub(super) fn disruption(plan: &Plan, owner: &OwnerReference) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(plan, owner),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(labels::selector(&plan.name)), match_expressions: None }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

//! The Deployment. It always states its replicas: left out of an apply, they would fall back to 1.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::{labels, metadata, pod};
use crate::{fingerprint::fingerprint, plan::Plan};

pub(super) fn deployment(plan: &Plan, owner: &OwnerReference) -> (Deployment, String) {
    let mut template = pod::template(plan);
    let print = fingerprint(&template);
    template
        .metadata
        .get_or_insert_default()
        .annotations
        .get_or_insert_default()
        .insert(labels::TEMPLATE.to_owned(), print.clone());
    let deployment = Deployment {
        metadata: metadata(plan, owner),
        spec: Some(DeploymentSpec {
            replicas: Some(plan.replicas),
            selector: LabelSelector { match_labels: Some(labels::selector(&plan.name)), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            progress_deadline_seconds: Some(plan.progress_deadline_seconds),
            revision_history_limit: Some(2),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    (deployment, print)
}

//! `spec.pod`: what is handed on to the pods as it is.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvVar, LocalObjectReference, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::bounded;

/// Settings of the model's pods that are handed on as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// CPU, memory and other resources of the server's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded::label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounded::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Name of the PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounded::object_names")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// More labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded::label_map")]
    #[x_kube(validation = Rule::new(
        "self.all(k, !k.startsWith('vlm-operator.dev/') && !(k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'pod-template-hash']))"
    ).message("pod.labels must not set labels that the operator or Kubernetes sets: vlm-operator.dev/*, app.kubernetes.io/name, app.kubernetes.io/instance, app.kubernetes.io/managed-by, pod-template-hash"))]
    pub labels: BTreeMap<String, String>,
    /// More annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded::annotation_map")]
    #[x_kube(validation = Rule::new(
        "self.all(k, !k.startsWith('vlm-operator.dev/') && k != 'controller.kubernetes.io/pod-deletion-cost')"
    ).message("pod.annotations must not set annotations that the operator sets: vlm-operator.dev/*, controller.kubernetes.io/pod-deletion-cost"))]
    pub annotations: BTreeMap<String, String>,
    /// More environment variables of the server's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounded::env")]
    pub env: Vec<EnvVar>,
}

/// Resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded::quantity_map")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is set aside for the container on its node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded::quantity_map")]
    pub requests: BTreeMap<String, Quantity>,
}

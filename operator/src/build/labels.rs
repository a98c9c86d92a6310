//! Labels and annotations of children and pods.

use std::collections::BTreeMap;

/// Name of the model. The selector of pods uses it alone.
pub const MODEL: &str = "vlm-operator.dev/model";
/// Annotation of pods: fingerprint of the template they were made from.
pub const TEMPLATE: &str = "vlm-operator.dev/template";
/// Who made the object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the field manager of every write.
pub const MANAGER: &str = "vlm-operator";
/// Annotation by which Kubernetes chooses the pods to remove first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The labels of every child of a model.
pub fn all(model: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "vlm-runtime"),
        ("app.kubernetes.io/instance", model),
        (MANAGED_BY, MANAGER),
        (MODEL, model),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

/// The labels that select the pods of a model.
pub fn selector(model: &str) -> BTreeMap<String, String> {
    [(MODEL.to_owned(), model.to_owned())].into()
}

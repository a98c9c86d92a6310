//! Labels and annotations of children and pods.

use std::collections::BTreeMap;

/// Name of the model. The selector of pods uses it alone.
pub use vlm_contract::labels::MODEL;
/// Label of a pod that looks at the checkpoint of the model of this name; it is none of the model's pods.
pub const INSPECTS: &str = "vlm-operator.dev/inspects";
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

/// The labels of the pod that looks at a model's checkpoint. No selector of the model's pods takes it.
pub fn inspecting(model: &str) -> BTreeMap<String, String> {
    let mut labels = all(model);
    labels.remove(MODEL);
    labels.insert("app.kubernetes.io/name".to_owned(), "vlm-inspect".to_owned());
    labels.insert(INSPECTS.to_owned(), model.to_owned());
    labels
}

/// The labels that select the pods of a model.
pub fn selector(model: &str) -> BTreeMap<String, String> {
    [(MODEL.to_owned(), model.to_owned())].into()
}

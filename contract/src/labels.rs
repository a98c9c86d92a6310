//! Labels of Kubernetes objects that one program sets and another selects by.

/// Name of the model, on each of its children and pods.
pub const MODEL: &str = "vlm-operator.dev/model";

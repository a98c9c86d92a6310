//! `spec.rollout`: how a change reaches the pods.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How a change reaches the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Seconds without progress, such as a replica that becomes ready, after which the model counts
    /// as stalled: Helm, Flux and Argo CD then stop waiting. The operator itself goes on trying.
    /// Default 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub progress_deadline_seconds: Option<i32>,
}

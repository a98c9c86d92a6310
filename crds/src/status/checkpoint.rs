//! `status.checkpoint`: what a look at the checkpoint told.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a look at the checkpoint told. It is kept, so that nothing is looked at twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// Where it is: spec.model.uri, of a repository with its revision behind an @.
    #[schemars(length(max = 1280))]
    pub source: String,
    /// Its description and the shapes of its tensors, as vlm-runtime inspect prints them.
    #[schemars(length(max = 4096))]
    pub inspection: String,
}

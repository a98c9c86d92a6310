//! Whether a model server can be reached through a gateway and answers: the operator asks a gateway, the gateway asks the
//! server about one small picture of its own, and the operator notes what came of it as a condition of the pod.

use serde::{Deserialize, Serialize};

/// The condition of a pod, and the readiness gate by which it is ready only once that holds.
pub const CONDITION: &str = "vlm-operator.dev/routable";
/// Where a gateway is asked, by POST on its admin port. 404: it does not know the pod yet; 409: the pod takes requests, or
/// is on its way out; 429: too much is asked at the same time.
pub const PATH: &str = "/routable";
/// Time that a server gets for the picture, in seconds. One without a GPU may need most of it.
pub const MOST_SECONDS: u64 = 120;
/// Longest question in bytes: three names.
pub const LONGEST_QUESTION: usize = 4096;
/// Longest answer in bytes.
pub const LONGEST_ANSWER: usize = 4096;

/// Whether this pod answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Namespace of model and pod.
    pub namespace: String,
    /// Name of the model.
    pub model: String,
    /// Name of the pod.
    pub pod: String,
}

/// Whether it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// It answered.
    pub routable: bool,
    /// What it did instead.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

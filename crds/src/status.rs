//! `status`: decisions and conditions, no measurements, so that an idle object causes no write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::bounded;

pub mod checkpoint;
pub mod conditions;
pub mod fit;
pub mod reasons;

pub use checkpoint::CheckpointStatus;
pub use fit::{Breakdown, FitStatus};

/// What the operator made of the spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VisionModelStatus {
    /// The generation of the spec that this status is about; -1 before the operator has seen any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the defaults came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// How one replica fits the memory that it has. Absent where no limit says how much that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<FitStatus>,
    /// What a look at the checkpoint told. Absent where no limit says how much memory a replica has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// How many replicas there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Base URL of the OpenAI-compatible API inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// What the autoscaler decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// That a gateway holds requests while there is no replica. The gateway writes it, and nobody clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Wake>,
    /// What the GPUs cost. Absent without spec.gpu, and where the catalogue has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Pods that cannot start, most actionable first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<Failure>,
    /// Ready, Reconciling, Stalled, Available, FitsGPU, MetricsAvailable, ScalingLimited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounded::conditions")]
    pub conditions: Vec<Condition>,
}

/// What the defaults came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Family of the model, as its config.json says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub architecture: Option<String>,
    /// Number format of the weights: none, int8 or int4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub quantization: Option<String>,
    /// Longest request, prompt and answer together, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i32>,
    /// Requests that one replica computes at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<i32>,
    /// The commit of the model's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
    /// The repository and revision that this commit was looked up for, as hf://ORGANISATION/NAME@REVISION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub source: Option<String>,
    /// Image of the model server.
    #[schemars(length(max = 1024))]
    pub image: String,
}

/// Counts of replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// How many are wanted.
    pub desired: i32,
    /// How many there are.
    pub current: i32,
    /// How many answer.
    pub ready: i32,
    /// How many are of the current spec.
    pub updated: i32,
    /// Ready of desired, as 1/4.
    #[schemars(length(max = 32))]
    pub summary: String,
}

/// What the GPUs cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// US dollars an hour for the wanted replicas, such as 2.49: the catalogue's price of one GPU times their number.
    #[schemars(length(max = 32))]
    pub per_hour: String,
}

/// That a gateway holds requests while there is no replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wake {
    /// When a gateway asked last.
    #[schemars(schema_with = "time")]
    pub requested_at: Time,
}

/// What the autoscaler decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Why there are as many replicas as there are.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The latest decisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<ScalingDecision>,
}

/// One change of the number of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// When it was decided.
    #[schemars(schema_with = "time")]
    pub time: Time,
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// Why.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What the decision rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<ScalingInputs>,
}

/// What a decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingInputs {
    /// Where the load was read: Pods or Prometheus.
    #[schemars(length(max = 32))]
    pub source: String,
    /// Running and waiting requests, averaged over the window.
    #[schemars(length(max = 32))]
    pub load: String,
    /// Seconds of the window.
    pub window_seconds: i32,
    /// Requests that one replica is to carry, waiting ones included.
    pub per_replica: i32,
    /// Replicas that answered.
    pub ready: i32,
    /// Requests refused within the window; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<i32>,
    /// Requests that arrive in a second; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub arrivals_per_second: Option<String>,
    /// Requests that a busy replica completes in a second; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub completions_per_second: Option<String>,
}

/// One pod that cannot start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One word for why.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Name of the pod; absent when no pod could be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// Exit code of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What is wrong, and what to do.
    #[schemars(length(max = 2048))]
    pub message: String,
}

fn time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}

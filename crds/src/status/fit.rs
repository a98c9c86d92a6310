//! `status.fit`: whether one replica fits the memory that it has, and what it takes.

#![allow(clippy::struct_field_names, reason = "amounts have their unit in the name, and the derive copies the struct")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How one replica fits the memory that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FitStatus {
    /// Fits or DoesNotFit.
    #[schemars(length(max = 32))]
    pub verdict: String,
    /// Bytes of everything with one request of the greatest length.
    pub required_bytes: i64,
    /// Bytes that may be used: 92 % of the GPU's memory, or of the container's memory limit.
    pub available_bytes: i64,
    /// What requiredBytes is made of.
    pub breakdown: Breakdown,
    /// Requests of the greatest length that one replica holds at the same time.
    pub full_length_sequences: i64,
    /// Requests with one picture and 512 tokens of text that one replica holds at the same time.
    pub typical_requests: i64,
    /// What would fit, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub suggestion: Option<String>,
}

/// What one replica takes, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breakdown {
    /// Rows of the vocabulary.
    pub embedding_bytes: i64,
    /// Linear layers, norms and biases of the decoder.
    pub decoder_bytes: i64,
    /// The output head; one tied to the embedding that is not quantised takes nothing.
    pub head_bytes: i64,
    /// The vision tower.
    pub tower_bytes: i64,
    /// The projector.
    pub projector_bytes: i64,
    /// What lives while the largest picture is read.
    pub image_bytes: i64,
    /// What lives while a step of the decoder is computed.
    pub workspace_bytes: i64,
    /// What the GPU's runtime, or the process, takes.
    pub context_bytes: i64,
    /// Keys and values of one request of the greatest length.
    pub kv_bytes: i64,
}

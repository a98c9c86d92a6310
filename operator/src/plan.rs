//! What to do: from a `VisionModel` and a number of replicas to a [`Plan`]. Pure: no client, no clock.

use std::str::FromStr;

use kube::ResourceExt;
use vlm_crds::{
    VisionModel,
    pod::PodSettings,
    uri::{ModelUri, UriError},
};

pub mod scale;

/// Settings of the operator that shape every model's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the model server.
    pub runtime_image: String,
    /// `imagePullPolicy` of the model server.
    pub image_pull_policy: String,
}

/// Everything that the child objects are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the `VisionModel` and of its children.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    /// Where the weights are.
    pub uri: ModelUri,
    /// Image of the model server.
    pub image: String,
    /// `imagePullPolicy` of the model server.
    pub image_pull_policy: String,
    /// Wanted number of pods.
    pub replicas: i32,
    /// Requests that a replica computes at the same time.
    pub max_concurrency: i32,
    /// Longest request in tokens; `None` leaves it to the model.
    pub max_tokens: Option<i32>,
    /// Seconds without progress after which a rollout counts as stuck.
    pub progress_deadline_seconds: i32,
    /// Seconds that running requests get to finish.
    pub drain_timeout_seconds: i32,
    /// What is handed on to the pods.
    pub pod: PodSettings,
}

/// Plans the children of a model.
///
/// # Errors
/// [`UriError`] for a URI that the API server's own check would have refused.
pub fn plan(model: &VisionModel, settings: &Settings, replicas: i32) -> Result<Plan, UriError> {
    let spec = &model.spec;
    Ok(Plan {
        name: model.name_any(),
        namespace: model.namespace().unwrap_or_default(),
        uri: ModelUri::from_str(&spec.model.uri)?,
        image: settings.runtime_image.clone(),
        image_pull_policy: settings.image_pull_policy.clone(),
        replicas,
        max_concurrency: spec.max_concurrency(),
        max_tokens: spec.context.as_ref().and_then(|c| c.max_tokens),
        progress_deadline_seconds: spec.progress_deadline_seconds(),
        drain_timeout_seconds: spec.drain_timeout_seconds(),
        pod: spec.pod.clone().unwrap_or_default(),
    })
}

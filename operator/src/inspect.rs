//! What a look at a model's checkpoint tells: what the status has kept of an earlier one, or the answer of a pod that
//! looks where the operator may not. [`look`] is pure; [`act`] and [`clear`] write.

use std::{str::FromStr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use tracing::info;
use vlm_catalog::inspection::Inspection;
use vlm_contract::uri::ModelUri;
use vlm_crds::{
    VisionModel,
    status::{CheckpointStatus, VisionModelStatus, reasons::Trouble},
};

use crate::{
    build::inspection::CONTAINER,
    metrics::Metrics,
    plan::fit::did_not_fit,
    status::{Problem, failures},
};

/// How long a pod that has failed for good stands before another is made.
const RETRY: SignedDuration = SignedDuration::from_secs(20);

/// Why a pod could not be made or taken away; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("the pod {name} that looks at the checkpoint could not be {done}")]
pub struct InspectError {
    name: String,
    done: &'static str,
    source: Box<kube::Error>,
}

/// What a pod has told so far.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// Everything.
    Told(Arc<Inspection>),
    /// Nothing yet, and what ails it.
    Pending(Option<Problem>),
    /// Nothing: there is no such pod.
    Absent,
    /// Nothing: it has failed for good, and another is to be made.
    Over(Problem),
}

/// Where the checkpoint of a model is, as `status.checkpoint` names it; `None` for a URI that is none.
pub fn source(model: &VisionModel) -> Option<String> {
    let spec = &model.spec.model;
    match ModelUri::from_str(&spec.uri).ok()? {
        ModelUri::Hub(repository) => Some(format!("hf://{repository}@{}", spec.revision())),
        ModelUri::Claim(_) => Some(spec.uri.clone()),
    }
}

/// What the status has kept of a look at the same checkpoint.
///
/// What lies on a claim may be changed in its place. So where it did not fit, a new spec has it looked at anew.
pub fn noted(model: &VisionModel, previous: &VisionModelStatus) -> Option<Arc<Inspection>> {
    let noted = previous.checkpoint.as_ref().filter(|noted| Some(&noted.source) == source(model).as_ref())?;
    let on_claim = ModelUri::from_str(&model.spec.model.uri).is_ok_and(|uri| uri.claim().is_some());
    if on_claim && did_not_fit(previous) && previous.observed_generation != model.metadata.generation {
        return None;
    }
    serde_json::from_str(&noted.inspection).ok().map(Arc::new)
}

/// As the status keeps it; to the letter as `previous` has it, where that says the same.
pub fn note(model: &VisionModel, previous: &VisionModelStatus, inspection: &Inspection) -> Option<CheckpointStatus> {
    if noted(model, previous).is_some_and(|noted| *noted == *inspection) {
        return previous.checkpoint.clone();
    }
    let inspection = serde_json::to_string(inspection).ok()?;
    Some(CheckpointStatus { source: source(model)?, inspection })
}

/// What the pod `wanted` has told, among the `pods` that look at checkpoints of its model.
pub fn look(wanted: &Pod, pods: &[Arc<Pod>], now: Timestamp) -> Look {
    let Some(pod) = pods.iter().find(|pod| pod.metadata.name == wanted.metadata.name) else { return Look::Absent };
    if pod.metadata.deletion_timestamp.is_some() {
        return Look::Pending(None);
    }
    if let Some(ended) = ended(pod).filter(|ended| ended.exit_code == 0) {
        let written = ended.message.as_deref().unwrap_or_default().trim();
        return match serde_json::from_str(written) {
            Ok(inspection) => Look::Told(Arc::new(inspection)),
            Err(error) => over(pod, Problem::new(Trouble::StartFailed, unreadable(&error)), now),
        };
    }
    match failures::of_inspection(pod) {
        Some(problem) if failures::is_over(pod) => over(pod, problem, now),
        problem => Look::Pending(problem),
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!(
        "what the look at the checkpoint told cannot be read: {error}; check that operator and runtime are of one version"
    )
}

fn over(pod: &Pod, problem: Problem, now: Timestamp) -> Look {
    let age = pod.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0));
    if age.is_some_and(|age| age < RETRY) { Look::Pending(Some(problem)) } else { Look::Over(problem) }
}

fn ended(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()
}

/// Does what follows from a look: makes the pod where there is none, takes away others. Returns what ails it.
///
/// # Errors
/// [`InspectError`] for what may pass.
pub async fn act(
    client: &Client,
    metrics: &Metrics,
    (wanted, look): (&Pod, &Look),
    pods: &[Arc<Pod>],
) -> Result<Option<Problem>, InspectError> {
    clear(client, metrics, pods, (!matches!(look, Look::Over(_))).then_some(wanted)).await?;
    match look {
        Look::Absent => start(client, metrics, wanted).await,
        Look::Pending(problem) => Ok(problem.clone()),
        Look::Over(problem) => Ok(Some(problem.clone())),
        Look::Told(_) => Ok(None),
    }
}

/// Makes the pod. What only a person can mend is a problem.
///
/// # Errors
/// [`InspectError`] for what may pass.
async fn start(client: &Client, metrics: &Metrics, pod: &Pod) -> Result<Option<Problem>, InspectError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api.create(&PostParams::default(), pod).await {
        Ok(_) => {
            metrics.wrote("Pod");
            info!(namespace, name, "looks at the checkpoint");
            Ok(None)
        }
        // The cache lags behind.
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Ok(Some(failures::refused(&status.message)))
        }
        Err(source) => Err(InspectError { name, done: "made", source: Box::new(source) }),
    }
}

/// Takes away the pods but `kept`.
///
/// # Errors
/// [`InspectError`] when one could not be.
pub async fn clear(
    client: &Client,
    metrics: &Metrics,
    pods: &[Arc<Pod>],
    kept: Option<&Pod>,
) -> Result<(), InspectError> {
    let kept = kept.and_then(|pod| pod.metadata.name.as_ref());
    let gone = |pod: &&Arc<Pod>| pod.metadata.name.as_ref() != kept && pod.metadata.deletion_timestamp.is_none();
    for pod in pods.iter().filter(gone) {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        match api.delete(&pod.name_any(), &DeleteParams::default()).await {
            Ok(_) => metrics.wrote("Pod"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                return Err(InspectError { name: pod.name_any(), done: "taken away", source: Box::new(source) });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

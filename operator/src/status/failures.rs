//! Why pods don't start: from all pods of the current template, the Deployment and the claim to
//! problems, most actionable first. Pure.

use std::{str::FromStr, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition},
    core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus},
};
use kube::ResourceExt;
use vlm_contract::{
    diagnosis::{Cause, Diagnosis},
    uri::ModelUri,
};
use vlm_crds::{
    VisionModel,
    status::{Failure, reasons::Trouble},
};

use super::{Counts, Facts, conditions::shorten, placement};
use crate::{
    build::labels,
    observe::Observed,
    routable::{self, Hindrance},
};

/// Longest text of a problem; the definition admits twice as much.
const MESSAGE_MAX: usize = 1000;

/// How a server ends that somebody stops: it drained, or SIGKILL or SIGTERM ended it.
const STOPPED: [i32; 3] = [0, 137, 143];

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub trouble: Trouble,
    /// The pod that has it.
    pub pod: Option<String>,
    /// The container that has it.
    pub container: Option<String>,
    /// How that container ended.
    pub exit_code: Option<i32>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem of the whole model.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, pod: None, container: None, exit_code: None, message: message.into() }
    }

    fn of_pod(trouble: Trouble, pod: &Pod, message: impl Into<String>) -> Self {
        Self { pod: Some(pod.name_any()), ..Self::new(trouble, message) }
    }

    fn of_container(trouble: Trouble, pod: &Pod, container: &ContainerStatus, message: impl Into<String>) -> Self {
        Self { container: Some(container.name.clone()), ..Self::of_pod(trouble, pod, message) }
    }

    /// One sentence with everything.
    pub fn describe(&self) -> String {
        let exit = self.exit_code.map(|code| format!("exit code {code}"));
        let pod = self.pod.as_ref().map(|pod| format!("pod {pod}"));
        let container = self.container.as_ref().map(|container| format!("container {container}"));
        let place: Vec<_> = [pod, container, exit].into_iter().flatten().collect();
        if place.is_empty() { self.message.clone() } else { format!("{} ({})", self.message, place.join(", ")) }
    }

    /// As it stands in the status.
    pub fn to_failure(&self) -> Failure {
        Failure {
            reason: self.trouble.reason().to_owned(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            exit_code: self.exit_code,
            message: shorten(&self.message, MESSAGE_MAX),
        }
    }
}

/// Finds what is wrong, most actionable first.
pub(super) fn find(facts: &Facts<'_>, counts: &Counts) -> Vec<Problem> {
    let (deployment, template) = match facts.applied {
        Ok(applied) => applied,
        Err(problem) => return problem.cloned().into_iter().collect(),
    };
    let mut problems = Vec::new();
    if facts.scale.desired > 0 {
        problems.extend(missing_claim(facts.model, facts.observed));
    }
    // Once all replicas answer, what is left are records: of pods that ended, of ReplicaSets that could not create any, and
    // of pods whose watch is behind that of the Deployment.
    if counts.are_complete() {
        return problems;
    }
    // Pods of an older template are about to go; what ails them says nothing about this spec.
    let is_current = |pod: &&Arc<Pod>| {
        let newest = pod.annotations().get(labels::TEMPLATE).is_some_and(|t| t == template);
        newest && pod.metadata.deletion_timestamp.is_none()
    };
    let current: Vec<_> = facts.observed.pods.iter().filter(is_current).collect();
    problems.extend(refused_pods(deployment, current.len(), counts));
    let nodes = facts.observed.nodes.as_deref();
    let explained = |problem| match facts.gpu {
        Some(gpu) => placement::explain(problem, gpu, nodes),
        None => problem,
    };
    problems.extend(current.into_iter().filter_map(|pod| of_pod(pod)).map(explained));
    problems.sort_by(|a, b| (a.trouble, &a.pod).cmp(&(b.trouble, &b.pod)));
    problems
}

/// The claim of the weights, where there is none.
pub(crate) fn missing_claim(model: &VisionModel, observed: &Observed) -> Option<Problem> {
    let uri = ModelUri::from_str(&model.spec.model.uri).ok()?;
    let claim = uri.claim().filter(|_| !observed.claim_exists)?;
    let namespace = model.namespace().unwrap_or_default();
    Some(Problem::new(
        Trouble::VolumeNotFound,
        format!(
            "the PersistentVolumeClaim {} of spec.model.uri does not exist in namespace {namespace}; create it or correct the name",
            claim.claim
        ),
    ))
}

/// Pods that the API server did not let the Deployment create, where `pods` of this template exist.
fn refused_pods(deployment: &Deployment, pods: usize, counts: &Counts) -> Option<Problem> {
    let status = deployment.status.as_ref()?;
    if status.observed_generation < deployment.metadata.generation {
        return None;
    }
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    let failure = condition("ReplicaFailure").filter(|c| c.status == "True")?;
    // It may be that of an older ReplicaSet: then there are pods enough, or the new one came after it.
    let before = |c: &DeploymentCondition| failure.last_update_time < c.last_update_time;
    let older = pods == 0 && condition("Progressing").is_some_and(before);
    if older || i32::try_from(pods).is_ok_and(|pods| pods >= counts.desired) {
        return None;
    }
    Some(refused(failure.message.as_deref().unwrap_or_default()))
}

/// A pod that the API server does not take, with what it says.
pub(crate) fn refused(message: &str) -> Problem {
    // Before it stands the made-up name of a pod that never was, another one at each attempt.
    let message = message.split_once("is forbidden: ").map_or(message, |(_, rest)| rest);
    let trouble = if message.contains("exceeded quota") {
        Trouble::QuotaExceeded
    } else if message.contains("violates PodSecurity") {
        Trouble::PodSecurityForbids
    } else {
        Trouble::PodRefused
    };
    Problem::new(trouble, shorten(message, MESSAGE_MAX))
}

/// The pod has ended for good: a node evicted or refused it.
pub(crate) fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed")
}

/// What ails a pod that looks at a checkpoint. Between two attempts it is what ailed the last: such a container counts
/// as ready as soon as it runs.
pub(crate) fn of_inspection(pod: &Pod) -> Option<Problem> {
    let mut pod = pod.clone();
    for container in pod.status.iter_mut().flat_map(|status| status.container_statuses.iter_mut().flatten()) {
        container.ready = false;
    }
    of_pod(&pod)
}

fn of_pod(pod: &Pod) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    if is_over(pod) {
        // Its containers were stopped with it: how they ended says nothing.
        let why = status.reason.as_deref().unwrap_or("the pod failed");
        let message = status.message.as_deref().filter(|m| !m.is_empty()).unwrap_or(why);
        return Some(Problem::of_pod(Trouble::PodEvicted, pod, shorten(message, MESSAGE_MAX)));
    }
    let first = status.init_container_statuses.iter().flatten().filter_map(|c| of_container(pod, c, false));
    let main = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|c| of_container(pod, c, true).or_else(|| silent_since_ready(pod, status, c)));
    if let Some(problem) = first.chain(main).min_by_key(|p| p.trouble) {
        return Some(problem);
    }
    if let Some(problem) = not_routable(pod) {
        return Some(problem);
    }
    let unscheduled =
        status.conditions.iter().flatten().find(|c| {
            c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
        })?;
    let message = unscheduled.message.clone().unwrap_or_else(|| "no node takes the pod".to_owned());
    Some(Problem::of_pod(Trouble::Unschedulable, pod, shorten(&message, MESSAGE_MAX)))
}

/// What ails a container. `probed`: the kubelet restarts it when its probes fail.
fn of_container(pod: &Pod, container: &ContainerStatus, probed: bool) -> Option<Problem> {
    if container.ready {
        return None;
    }
    let state = container.state.clone().unwrap_or_default();
    let last = container.last_state.clone().unwrap_or_default();
    // Until it is ready again, how it last ended is what ails it, whatever it does meanwhile.
    let ended = state.terminated.or(last.terminated);
    if let Some(ended) = ended.filter(|e| e.exit_code != 0 || container.restart_count > 0) {
        return Some(ended_badly(pod, container, &ended, probed));
    }
    let waiting = state.waiting?;
    let detail = waiting.message.unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => {
            Some(Problem::of_container(Trouble::ImagePullError, pod, container, unpullable(&container.image, &detail)))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let message = format!("the container cannot be created: {}", shorten(&detail, MESSAGE_MAX));
            Some(Problem::of_container(Trouble::ContainerConfigError, pod, container, message))
        }
        _ => None,
    }
}

/// A server that was ready since it started, and is not any more. One that still loads never was.
fn silent_since_ready(pod: &Pod, status: &PodStatus, container: &ContainerStatus) -> Option<Problem> {
    let started = container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    let changed = status.conditions.iter().flatten().find(|c| c.type_ == "ContainersReady" && c.status == "False")?;
    let was_ready = changed.last_transition_time.as_ref()?.0 > started.0;
    (was_ready && !container.ready && container.started == Some(true)).then(|| {
        let message = "the server runs but no longer passes its readiness probe; see the container's log";
        Problem::of_container(Trouble::ProbeFailed, pod, container, message)
    })
}

/// A server that is ready but for the gateway, which it does not answer or which nobody can ask.
fn not_routable(pod: &Pod) -> Option<Problem> {
    let (told, message) = routable::hindrance(pod)?;
    let trouble = match told {
        Hindrance::NoAnswer => Trouble::NotRoutable,
        Hindrance::NoGateway => Trouble::GatewayUnreachable,
    };
    Some(Problem::of_pod(trouble, pod, shorten(message, MESSAGE_MAX)))
}

fn unpullable(image: &str, detail: &str) -> String {
    // The kubelet alternates between the error and "Back-off pulling image …: ErrImagePull: the error".
    let error = detail.split_once("ErrImagePull: ").map_or(detail, |(_, error)| error);
    let error = if error.starts_with("Back-off") { "" } else { error };
    let mend = "check the image's name, that it exists, and spec.pod.imagePullSecrets";
    if error.is_empty() {
        format!("the image {image} cannot be pulled; {mend}")
    } else {
        format!("the image {image} cannot be pulled: {}; {mend}", shorten(error, MESSAGE_MAX / 2))
    }
}

fn ended_badly(pod: &Pod, container: &ContainerStatus, ended: &ContainerStateTerminated, probed: bool) -> Problem {
    let code = ended.exit_code;
    let written = ended.message.as_deref().unwrap_or_default();
    let diagnosis: Option<Diagnosis> = serde_json::from_str(written.trim()).ok();
    let (trouble, message) = if let Some(diagnosis) = diagnosis {
        (diagnosis.reason.into(), shorten(&diagnosis.message, MESSAGE_MAX))
    } else if ended.reason.as_deref() == Some("OOMKilled") {
        (
            Trouble::ContainerOOMKilled,
            "the container used more memory than its limit; raise spec.pod.resources.limits.memory".to_owned(),
        )
    } else if let Some(cause) = Cause::from_exit_code(code) {
        (cause.into(), said(written, cause.mend()))
    } else if probed && STOPPED.contains(&code) {
        let message = "the container was stopped from outside: its startup or liveness probe failed, or its node ran short of memory; see the pod's events";
        (Trouble::ProbeFailed, message.to_owned())
    } else {
        (Trouble::ContainerCrashLoopBackOff, said(written, "see the container's log"))
    };
    Problem { exit_code: Some(code), ..Problem::of_container(trouble, pod, container, message) }
}

/// The last line that a container wrote, and what to do. Rust ends a panic with a hint that tells nothing.
fn said(written: &str, mend: &str) -> String {
    let tells = |line: &&str| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE=1`");
    match written.lines().map(str::trim).rfind(tells) {
        Some(line) => format!("the container ended: {}; {mend}", shorten(line, MESSAGE_MAX / 2)),
        None => format!("the container ended; {mend}"),
    }
}

//! What a pod has that runs on a GPU: the device, a node that has it, and a place for the kernels that the driver
//! compiles.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, EmptyDirVolumeSource, EnvVar, NodeAffinity, NodeSelector, NodeSelectorRequirement,
        NodeSelectorTerm, PodSpec, Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use vlm_catalog::gpu::{self, NodeLabels};
use vlm_contract::flags;

use crate::plan::placement::Gpu;

/// The driver compiles kernels on first use and keeps them; the root file system cannot be written.
const CACHE_VOLUME: &str = "cuda-cache";
const CACHE: &str = "/cuda-cache";

/// Arguments of the server.
pub(super) const ARGUMENTS: [(&str, &str); 1] = [(flags::DEVICE, flags::CUDA)];

/// Gives `server` one GPU, and its pod a node that has one.
pub(super) fn place(gpu: &Gpu, pod: &mut PodSpec, server: &mut Container) {
    equip(gpu, server);
    pod.volumes.get_or_insert_default().push(Volume {
        name: CACHE_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    pod.affinity = affinity(&gpu.kind.nodes);
    let given = pod.tolerations.take().unwrap_or_default();
    let more: Vec<_> = gpu.kind.tolerations.iter().map(toleration).filter(|more| !given.contains(more)).collect();
    let all: Vec<_> = given.into_iter().chain(more).collect();
    pod.tolerations = (!all.is_empty()).then_some(all);
    pod.runtime_class_name.clone_from(&gpu.kind.runtime_class_name);
}

fn equip(gpu: &Gpu, server: &mut Container) {
    let resources = server.resources.get_or_insert_default();
    // One GPU for each replica, whatever the person asks for; a request for another number would be refused.
    resources.limits.get_or_insert_default().insert(gpu.kind.resource.clone(), Quantity("1".to_owned()));
    if let Some(requests) = &mut resources.requests {
        requests.remove(&gpu.kind.resource);
    }
    if resources.requests.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
        resources.requests = None;
    }
    server.volume_mounts.get_or_insert_default().push(VolumeMount {
        name: CACHE_VOLUME.to_owned(),
        mount_path: CACHE.to_owned(),
        ..VolumeMount::default()
    });
    let variables = server.env.get_or_insert_default();
    if variables.iter().all(|variable| variable.name != flags::CUDA_CACHE_VARIABLE) {
        variables.push(EnvVar {
            name: flags::CUDA_CACHE_VARIABLE.to_owned(),
            value: Some(CACHE.to_owned()),
            value_from: None,
        });
    }
}

/// One term for each way in which nodes tell that they have the GPU; any of them is enough.
fn affinity(alternatives: &[NodeLabels]) -> Option<Affinity> {
    if alternatives.is_empty() {
        return None;
    }
    let term = |labels: &NodeLabels| NodeSelectorTerm {
        match_expressions: Some(labels.iter().map(|(key, values)| requirement(key, values)).collect()),
        match_fields: None,
    };
    let terms = NodeSelector { node_selector_terms: alternatives.iter().map(term).collect() };
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(terms),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

fn requirement(key: &str, values: &[String]) -> NodeSelectorRequirement {
    let absent = values.is_empty();
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: if absent { "DoesNotExist" } else { "In" }.to_owned(),
        values: (!absent).then(|| values.to_vec()),
    }
}

fn toleration(given: &gpu::Toleration) -> Toleration {
    Toleration {
        key: Some(given.key.clone()),
        operator: Some(given.operator.clone()),
        value: given.value.clone(),
        effect: Some(given.effect.clone()),
        toleration_seconds: None,
    }
}

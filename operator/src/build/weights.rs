//! How the weights get to where the server reads them: from a claim as they are, or fetched by an init container
//! into a directory of the pod.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource, SecretKeySelector,
    Volume, VolumeMount,
};
use vlm_contract::{flags, uri::ModelUri};
use vlm_crds::{pod::Resources, vision_model::SecretKey};

use super::pod;
use crate::plan::{Plan, Source};

/// Name of the container that fetches.
pub const CONTAINER: &str = "fetch";
/// Resources that fetching shares with serving; a GPU is none of them.
const SHARED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const VOLUME: &str = "models";
const MODELS: &str = "/models";
/// Below [`MODELS`]: a mount itself could not be published by a rename.
const FETCHED: &str = "checkpoint";

/// The volume that holds the weights.
pub(super) fn volume(source: &Source) -> Volume {
    let mut volume = Volume { name: VOLUME.to_owned(), ..Volume::default() };
    match source {
        Source::Claim(claim) => {
            volume.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name: claim.claim.clone(), read_only: Some(true) });
        }
        Source::Hub { .. } => volume.empty_dir = Some(EmptyDirVolumeSource::default()),
    }
    volume
}

/// Where the server sees it.
pub(super) fn mount() -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: MODELS.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// Directory of the checkpoint, as the server sees it.
pub(super) fn directory(source: &Source) -> String {
    match source {
        Source::Claim(claim) => format!("{MODELS}/{}", claim.path),
        Source::Hub { .. } => format!("{MODELS}/{FETCHED}"),
    }
}

/// What runs before the server.
pub(super) fn init_containers(plan: &Plan) -> Option<Vec<Container>> {
    let Source::Hub { repository, revision, token, endpoint } = &plan.source else { return None };
    let arguments = [
        "fetch",
        flags::URI,
        &ModelUri::Hub(repository.clone()).to_string(),
        flags::REVISION,
        revision,
        flags::TO,
        &directory(&plan.source),
        flags::TERMINATION_LOG,
        pod::TERMINATION_LOG,
    ];
    Some(vec![Container {
        name: CONTAINER.to_owned(),
        args: Some(arguments.map(ToOwned::to_owned).into()),
        env: environment(&plan.pod.env, endpoint.as_deref(), token.as_ref()),
        resources: plan.pod.resources.as_ref().map(|given| pod::resources(&shared(given))),
        volume_mounts: Some(vec![VolumeMount { read_only: None, ..mount() }]),
        ..pod::container(plan)
    }])
}

/// The variables of the person, and what they do not set of ours. The token comes as a variable: a Secret that is
/// missing is then told by the kubelet, and no file of it lies in the pod.
pub(super) fn environment(given: &[EnvVar], endpoint: Option<&str>, token: Option<&SecretKey>) -> Option<Vec<EnvVar>> {
    let named = |name: &str| EnvVar { name: name.to_owned(), ..EnvVar::default() };
    let endpoint = endpoint.map(|url| EnvVar { value: Some(url.to_owned()), ..named(flags::HUB_ENDPOINT_VARIABLE) });
    let token = token.map(|SecretKey { name, key }| EnvVar {
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector { name: name.clone(), key: key.clone(), optional: None }),
            ..EnvVarSource::default()
        }),
        ..named(flags::HUB_TOKEN_VARIABLE)
    });
    let ours = [endpoint, token].into_iter().flatten().filter(|ours| given.iter().all(|v| v.name != ours.name));
    let all: Vec<EnvVar> = given.iter().cloned().chain(ours).collect();
    (!all.is_empty()).then_some(all)
}

fn shared(given: &Resources) -> Resources {
    let mut shared = given.clone();
    for amounts in [&mut shared.limits, &mut shared.requests] {
        amounts.retain(|resource, _| SHARED.contains(&resource.as_str()));
    }
    shared
}

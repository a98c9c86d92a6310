//! The pod that looks at a checkpoint where the operator may not: on a claim, or in a repository that needs a token.
//! It reads descriptions and headers, no weights, and answers in its termination message.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, Pod, PodAffinity, PodAffinityTerm, PodSpec, ResourceRequirements, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
    },
};
use vlm_contract::{flags, uri::ModelUri};

use super::{labels, pod, weights};
use crate::{
    fingerprint::fingerprint,
    plan::{Plan, Source},
};

/// Name of its container.
pub const CONTAINER: &str = "inspect";

/// The pod of `image` that looks at the checkpoint of `plan`, owned by `owner`. Its name tells its content: another spec that asks
/// the same gives the same pod.
pub fn inspection(plan: &Plan, image: &str, owner: &OwnerReference) -> Pod {
    let mut labels = plan.pod.labels.clone();
    labels.extend(labels::inspecting(&plan.name));
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: Some(plan.namespace.clone()),
            labels: Some(labels),
            annotations: pod::filled(&plan.pod.annotations),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container { image: Some(image.to_owned()), ..container(plan) }],
            // A failure is tried again by the kubelet, ever more seldom.
            restart_policy: Some("OnFailure".to_owned()),
            volumes: matches!(plan.source, Source::Claim(_)).then(|| vec![weights::volume(&plan.source)]),
            affinity: matches!(plan.source, Source::Claim(_)).then(|| near(&plan.name)),
            security_context: Some(pod::security()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(1),
            node_selector: pod::filled(&plan.pod.node_selector),
            tolerations: (!plan.pod.tolerations.is_empty()).then(|| plan.pod.tolerations.clone()),
            priority_class_name: plan.pod.priority_class_name.clone(),
            image_pull_secrets: (!plan.pod.image_pull_secrets.is_empty()).then(|| plan.pod.image_pull_secrets.clone()),
            ..PodSpec::default()
        }),
        status: None,
    };
    pod.metadata.name = Some(format!("{}-inspect-{}", plan.name, fingerprint(&pod)));
    pod
}

/// A claim that one node at a time may mount is mounted where the model's pods are.
fn near(model: &str) -> Affinity {
    let selector = LabelSelector { match_labels: Some(labels::selector(model)), match_expressions: None };
    let term = PodAffinityTerm {
        label_selector: Some(selector),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    let affinity =
        PodAffinity { preferred_during_scheduling_ignored_during_execution: Some(preferred), ..PodAffinity::default() };
    Affinity { pod_affinity: Some(affinity), ..Affinity::default() }
}

fn container(plan: &Plan) -> Container {
    let (place, env) = match &plan.source {
        Source::Claim(_) => (vec![flags::MODEL.to_owned(), weights::directory(&plan.source)], None),
        Source::Hub { repository, revision, token, endpoint } => {
            let uri = ModelUri::Hub(repository.clone()).to_string();
            let place = vec![flags::URI.to_owned(), uri, flags::REVISION.to_owned(), revision.clone()];
            (place, weights::environment(&plan.pod.env, endpoint.as_deref(), token.as_ref()))
        }
    };
    let log = [flags::TERMINATION_LOG, pod::TERMINATION_LOG].map(ToOwned::to_owned);
    Container {
        name: CONTAINER.to_owned(),
        args: Some([vec![CONTAINER.to_owned()], place, log.into()].concat()),
        env,
        resources: Some(resources()),
        volume_mounts: matches!(plan.source, Source::Claim(_)).then(|| vec![weights::mount()]),
        ..pod::container(plan)
    }
}

/// Headers have at most some megabytes. Limits too, where a quota asks for them.
fn resources() -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str| {
        let of = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
        Some([of("cpu", cpu), of("memory", memory)].into())
    };
    ResourceRequirements { requests: amounts("50m", "64Mi"), limits: amounts("1", "512Mi"), claims: None }
}

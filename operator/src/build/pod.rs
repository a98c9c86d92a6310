//! The pod template: one server, its weights mounted read-only, nothing that the `restricted`
//! `PodSecurity` level forbids.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, HTTPGetAction, PodReadinessGate, PodSecurityContext, PodSpec,
        PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::Quantization;
use vlm_contract::{flags, ports, routable};
use vlm_crds::pod::Resources;

use super::{gpu, labels, weights};
use crate::plan::Plan;

/// Name of the server's container.
pub const CONTAINER: &str = "server";
/// The user that every image runs as.
const USER: i64 = 65532;
/// Seconds between the end of the drain and SIGKILL: endpoints lag, and the process has to end.
const GRACE_AFTER_DRAIN_SECONDS: i32 = 15;
pub(super) const TERMINATION_LOG: &str = "/dev/termination-log";

pub(super) fn template(plan: &Plan) -> PodTemplateSpec {
    let pod = &plan.pod;
    let mut labels = pod.labels.clone();
    labels.extend(labels::all(&plan.name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: filled(&pod.annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(plan)),
    }
}

fn spec(plan: &Plan) -> PodSpec {
    let (pod, mut server) = (&plan.pod, server(plan));
    let mut spec = PodSpec {
        init_containers: weights::init_containers(plan),
        volumes: Some(vec![weights::volume(&plan.source)]),
        security_context: Some(security()),
        readiness_gates: plan.gated.then(|| vec![PodReadinessGate { condition_type: routable::CONDITION.to_owned() }]),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(
            plan.drain_timeout_seconds.saturating_add(GRACE_AFTER_DRAIN_SECONDS),
        )),
        node_selector: filled(&pod.node_selector),
        tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.clone()),
        priority_class_name: pod.priority_class_name.clone(),
        image_pull_secrets: (!pod.image_pull_secrets.is_empty()).then(|| pod.image_pull_secrets.clone()),
        ..PodSpec::default()
    };
    if let Some(gpu) = &plan.gpu {
        gpu::place(gpu, &mut spec, &mut server);
    }
    spec.containers = vec![server];
    spec
}

/// What no container of a pod may do.
pub(super) fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn server(plan: &Plan) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        args: Some(arguments(plan)),
        ports: Some(vec![ContainerPort {
            name: Some(ports::HTTP_NAME.to_owned()),
            container_port: i32::from(ports::RUNTIME_HTTP),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        env: (!plan.pod.env.is_empty()).then(|| plan.pod.env.clone()),
        resources: plan.pod.resources.as_ref().map(resources),
        // The server listens before it loads the weights, so it is soon known to be alive; loading
        // may take as long as it takes.
        startup_probe: Some(probe("/health", 1, 2, 60)),
        liveness_probe: Some(probe("/health", 10, 5, 6)),
        readiness_probe: Some(probe("/ready", 1, 5, 3)),
        volume_mounts: Some(vec![weights::mount()]),
        ..container(plan)
    }
}

/// What the containers of a pod have in common: the program, how its end is told, and what it may not do.
pub(super) fn container(plan: &Plan) -> Container {
    Container {
        image: Some(plan.image.clone()),
        image_pull_policy: Some(plan.image_pull_policy.clone()),
        command: Some(vec!["vlm-runtime".to_owned()]),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn arguments(plan: &Plan) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned()];
    let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    flag(flags::MODEL, weights::directory(&plan.source));
    flag(flags::SERVED_MODEL_NAME, plan.name.clone());
    // The name by which the gateway finds it whatever other namespaces have.
    flag(flags::SERVED_MODEL_NAME, format!("{}/{}", plan.namespace, plan.name));
    for alias in &plan.aliases {
        flag(flags::SERVED_MODEL_NAME, alias.clone());
    }
    if let Some(tokens) = plan.max_tokens {
        flag(flags::MAX_TOKENS, tokens.to_string());
    }
    flag(flags::MAX_CONCURRENCY, plan.max_concurrency.to_string());
    if plan.quantization != Quantization::None {
        flag(flags::QUANTIZATION, plan.quantization.to_string());
    }
    if plan.kv_cache_dtype != KvCacheDtype::Auto {
        flag(flags::KV_CACHE_DTYPE, plan.kv_cache_dtype.to_string());
    }
    if let Some(bytes) = plan.kv_bytes {
        flag(flags::KV_BYTES, bytes.to_string());
    }
    if let Some(bytes) = plan.picture_cache_bytes {
        flag(flags::ENCODER_CACHE_BYTES, bytes.to_string());
    }
    for (name, value) in plan.gpu.iter().flat_map(|_| gpu::ARGUMENTS) {
        flag(name, value.to_owned());
    }
    if let Some(key) = &plan.gateway_public_key {
        flag(flags::CONTINUATION_PUBLIC_KEY, key.clone());
    }
    flag(flags::DRAIN_TIMEOUT_SECONDS, plan.drain_timeout_seconds.to_string());
    flag(flags::TERMINATION_LOG, TERMINATION_LOG.to_owned());
    arguments
}

fn probe(path: &str, period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ports::HTTP_NAME.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

pub(super) fn resources(given: &Resources) -> ResourceRequirements {
    let filled = |map: &BTreeMap<_, _>| (!map.is_empty()).then(|| map.clone());
    ResourceRequirements { limits: filled(&given.limits), requests: filled(&given.requests), claims: None }
}

pub(super) fn filled(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

//! What the children look like, and that the same plan always gives the same ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::Quantization;
use vlm_contract::uri::ModelUri;
use vlm_crds::pod::PodSettings;
use vlm_crds::vision_model::SecretKey;

use super::*;
use crate::plan::Source;

mod on_gpus;

fn plan() -> Plan {
    Plan {
        name: "tiny".to_owned(),
        namespace: "shop".to_owned(),
        aliases: Vec::new(),
        source: source("pvc://weights/llava/tiny"),
        image: "registry/vlm-runtime:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        gpu: None,
        replicas: 3,
        max_concurrency: 8,
        max_tokens: Some(1024),
        quantization: Quantization::None,
        kv_cache_dtype: KvCacheDtype::Auto,
        kv_bytes: None,
        picture_cache_bytes: None,
        progress_deadline_seconds: 1800,
        drain_timeout_seconds: 120,
        gateway_public_key: None,
        gated: false,
        pod: PodSettings::default(),
    }
}

fn source(uri: &str) -> Source {
    match uri.parse().unwrap() {
        ModelUri::Claim(claim) => Source::Claim(claim),
        ModelUri::Hub(repository) => {
            Source::Hub { repository, revision: "c0ffee".to_owned(), token: None, endpoint: None }
        }
    }
}

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "vlm-operator.dev/v1alpha1".to_owned(),
        kind: "VisionModel".to_owned(),
        name: "tiny".to_owned(),
        uid: "u1".to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn deployment(plan: &Plan) -> Value {
    serde_json::to_value(build(plan, &owner()).deployment).unwrap()
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let bytes = |plan: &Plan| {
        let children = build(plan, &owner());
        (serde_json::to_string(&children.deployment).unwrap(), children.template)
    };
    assert_eq!(bytes(&plan()), bytes(&plan()));
}

/// A changed fingerprint restarts every model in every cluster: change it knowingly.
#[test]
fn the_pod_template_is_what_it_was() {
    assert_eq!(build(&plan(), &owner()).template, "b5bef076894703b5");
}

#[test]
fn replicas_are_stated_and_are_no_part_of_the_template() {
    let (three, zero) = (plan(), Plan { replicas: 0, ..plan() });
    assert_eq!(deployment(&three)["spec"]["replicas"], 3);
    assert_eq!(deployment(&zero)["spec"]["replicas"], 0);
    assert_eq!(build(&three, &owner()).template, build(&zero, &owner()).template);
}

#[test]
fn the_server_gets_its_model_read_only_and_its_arguments() {
    let pod = &deployment(&plan())["spec"]["template"]["spec"];
    let server = &pod["containers"][0];
    assert_eq!(server["command"], json!(["vlm-runtime"]));
    assert_eq!(
        server["args"],
        json!([
            "serve",
            "--model",
            "/models/llava/tiny",
            "--served-model-name",
            "tiny",
            "--served-model-name",
            "shop/tiny",
            "--max-tokens",
            "1024",
            "--max-concurrency",
            "8",
            "--drain-timeout-seconds",
            "120",
            "--termination-log",
            "/dev/termination-log"
        ])
    );
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"], json!({"claimName": "weights", "readOnly": true}));
    assert_eq!(server["volumeMounts"][0]["readOnly"], true);
    assert_eq!(pod["terminationGracePeriodSeconds"], 135);
}

#[test]
fn servers_answer_to_aliases_too() {
    let plan = Plan { aliases: vec!["small".to_owned(), "s".to_owned()], ..plan() };
    let args = deployment(&plan)["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    let names = r#""--served-model-name","shop/tiny","--served-model-name","small","--served-model-name","s""#;
    assert!(args.contains(names), "{args}");
}

#[test]
fn servers_know_the_gateways_key_where_there_is_one() {
    let args = |plan: &Plan| deployment(plan)["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(!args(&plan()).contains("--continuation-public-key"));
    let with = Plan { gateway_public_key: Some("AAAA".to_owned()), ..plan() };
    assert!(args(&with).contains(r#""--continuation-public-key","AAAA""#));
}

#[test]
fn where_a_gateway_is_a_replica_is_ready_only_once_one_has_reached_it() {
    let gates = |plan: &Plan| deployment(plan)["spec"]["template"]["spec"]["readinessGates"].clone();
    assert_eq!(gates(&plan()), Value::Null);
    let with = Plan { gated: true, ..plan() };
    assert_eq!(gates(&with), json!([{"conditionType": "vlm-operator.dev/routable"}]));
    assert!(looking(&with)["spec"].get("readinessGates").is_none(), "nobody asks the one that looks");
}

#[test]
fn the_pod_meets_the_restricted_level() {
    let pod = &deployment(&plan())["spec"]["template"]["spec"];
    let server = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(server["allowPrivilegeEscalation"], false);
    assert_eq!(server["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(server["readOnlyRootFilesystem"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[test]
fn labels_of_the_person_are_added_and_never_win() {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned()), (labels::MODEL.to_owned(), "x".to_owned())]);
    let plan = Plan { pod: PodSettings { labels, ..PodSettings::default() }, ..plan() };
    let deployment = deployment(&plan);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels[labels::MODEL]), (&json!("a"), &json!("tiny")));
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({labels::MODEL: "tiny"}));
    assert_eq!(deployment["metadata"]["labels"]["team"], Value::Null);
}

#[test]
fn service_and_budget_select_the_same_pods() {
    let children = build(&plan(), &owner());
    let service = children.service.spec.unwrap();
    let budget = children.disruption.spec.unwrap();
    assert_eq!(service.selector, budget.selector.unwrap().match_labels);
    assert_eq!(service.ports.unwrap()[0].port, 80);
    assert_eq!(budget.unhealthy_pod_eviction_policy.as_deref(), Some("AlwaysAllow"));
}

#[test]
fn the_progress_deadline_reaches_the_deployment_and_restarts_nothing() {
    let (long, short) = (plan(), Plan { progress_deadline_seconds: 60, ..plan() });
    assert_eq!(deployment(&short)["spec"]["progressDeadlineSeconds"], 60);
    assert_eq!(build(&long, &owner()).template, build(&short, &owner()).template);
}

/// The plan of a model of the hub, with everything that shapes its init container.
fn hub_plan() -> Plan {
    let Source::Hub { repository, revision, .. } = source("hf://org/tiny") else { panic!("a claim") };
    let token = Some(SecretKey { name: "hf".to_owned(), key: "token".to_owned() });
    let pod = json!({
        "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}, "requests": {"cpu": "1"}},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
    });
    let endpoint = Some("http://mirror".to_owned());
    let source = Source::Hub { repository, revision, token, endpoint };
    Plan { source, pod: serde_json::from_value(pod).unwrap(), ..plan() }
}

#[test]
fn the_weights_of_a_repository_are_fetched_before_the_server_starts() {
    let pod = &deployment(&hub_plan())["spec"]["template"]["spec"];
    let fetch = &pod["initContainers"][0];
    assert_eq!(fetch["name"], FETCH_CONTAINER);
    assert_eq!(
        fetch["args"],
        json!([
            "fetch",
            "--uri",
            "hf://org/tiny",
            "--revision",
            "c0ffee",
            "--to",
            "/models/checkpoint",
            "--termination-log",
            "/dev/termination-log"
        ])
    );
    assert_eq!(pod["volumes"], json!([{"name": "models", "emptyDir": {}}]));
    assert_eq!(fetch["volumeMounts"], json!([{"name": "models", "mountPath": "/models"}]));
    let server = &pod["containers"][0];
    assert_eq!(server["args"][2], "/models/checkpoint");
    assert_eq!(server["volumeMounts"][0]["readOnly"], true);
    for same in ["image", "imagePullPolicy", "command", "securityContext", "terminationMessagePath"] {
        assert_eq!(fetch[same], server[same], "{same}");
    }
    assert_eq!(fetch["resources"], json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}), "no GPU");
}

#[test]
fn only_the_fetching_container_gets_the_token() {
    let pod = &deployment(&hub_plan())["spec"]["template"]["spec"];
    let token = json!({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}});
    let endpoint = json!({"name": "HF_ENDPOINT", "value": "http://mirror"});
    let proxy = json!({"name": "HTTPS_PROXY", "value": "http://proxy"});
    assert_eq!(pod["initContainers"][0]["env"], json!([proxy, endpoint, token]));
    assert_eq!(pod["containers"][0]["env"], json!([proxy]));
    let mut plan = hub_plan();
    plan.pod.env[0].name = "HF_ENDPOINT".to_owned();
    let env = &deployment(&plan)["spec"]["template"]["spec"]["initContainers"][0]["env"];
    assert_eq!(env.as_array().unwrap().len(), 2, "what the person sets wins: {env}");
}

#[test]
fn what_fits_is_handed_to_the_server() {
    let (quantization, kv_bytes, picture_cache_bytes) = (Quantization::Int4, Some(1 << 30), Some(1 << 20));
    let kv_cache_dtype = KvCacheDtype::Int8;
    let fitted = Plan { quantization, kv_cache_dtype, kv_bytes, picture_cache_bytes, ..plan() };
    let flags = [
        ["--quantization", "int4"],
        ["--kv-cache-dtype", "int8"],
        ["--kv-bytes", "1073741824"],
        ["--encoder-cache-bytes", "1048576"],
    ];
    for (plan, handed_on) in [(fitted, true), (plan(), false)] {
        let args = deployment(&plan)["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let args: Vec<_> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        for flag in flags {
            assert_eq!(args.windows(2).any(|pair| pair == flag), handed_on, "{args:?}");
        }
    }
}

fn looking(plan: &Plan) -> Value {
    serde_json::to_value(inspection::inspection(plan, "registry/vlm-runtime:1", &owner())).unwrap()
}

#[test]
fn a_claim_is_looked_at_read_only_by_a_small_pod_that_is_none_of_the_models() {
    let pod = looking(&plan());
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u1");
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    assert!(!labels.contains_key(labels::MODEL), "the Service would send it requests: {labels:?}");
    assert_eq!((&labels[labels::INSPECTS], &labels[labels::MANAGED_BY]), (&json!("tiny"), &json!("vlm-operator")));
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(
        container["args"],
        json!(["inspect", "--model", "/models/llava/tiny", "--termination-log", "/dev/termination-log"])
    );
    assert_eq!(spec["volumes"][0]["persistentVolumeClaim"], json!({"claimName": "weights", "readOnly": true}));
    assert_eq!(container["volumeMounts"][0]["readOnly"], true);
    assert_eq!(spec["restartPolicy"], "OnFailure");
    assert!(container.get("ports").is_none() && container.get("env").is_none());
    let server = &deployment(&plan())["spec"]["template"]["spec"];
    for same in ["securityContext", "automountServiceAccountToken", "enableServiceLinks"] {
        assert_eq!(spec[same], server[same], "{same}");
    }
    assert_eq!(container["securityContext"], server["containers"][0]["securityContext"]);
    assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "512Mi"}), "quotas may ask for limits");
}

#[test]
fn a_private_repository_is_looked_at_with_its_token() {
    let pod = looking(&hub_plan());
    let container = &pod["spec"]["containers"][0];
    let expected =
        ["inspect", "--uri", "hf://org/tiny", "--revision", "c0ffee", "--termination-log", "/dev/termination-log"];
    assert_eq!(container["args"], json!(expected));
    let fetch = &deployment(&hub_plan())["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(container["env"], fetch["env"], "as the container that fetches");
    assert!(pod["spec"].get("volumes").is_none() && pod["spec"].get("affinity").is_none());
}

#[test]
fn the_name_of_a_looking_pod_tells_its_content() {
    let name = |plan: &Plan| looking(plan)["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(name(&plan()), name(&Plan { replicas: 7, max_tokens: None, ..plan() }));
    assert_ne!(name(&plan()), name(&Plan { source: source("pvc://weights/other"), ..plan() }));
    assert!(name(&plan()).starts_with("tiny-inspect-"));
    let pod = PodSettings { priority_class_name: Some("high".to_owned()), ..PodSettings::default() };
    assert_ne!(name(&plan()), name(&Plan { pod, ..plan() }));
}

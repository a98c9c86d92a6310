//! The chart as Helm sees it: lints, renders, and refuses wrong values by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;
use vlm_catalog::gpu::GpuTypes;
use vlm_tests::tools::{documents, tool};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/vlm-operator");

fn render(settings: &[&str]) -> Result<Vec<Value>, String> {
    let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    render_with(&settings)
}

/// Renders for a cluster that has these API versions besides Kubernetes' own.
fn render_for(settings: &[&str], api_versions: &[&str]) -> Result<Vec<Value>, String> {
    let versions = api_versions.iter().flat_map(|version| ["--api-versions", version]);
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    render_with(&versions.chain(settings).collect::<Vec<_>>())
}

fn render_with(flags: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = Command::new(tool("helm"));
    command.args(["template", "vlm-operator", CHART, "--namespace", "vlm-system"]).args(flags);
    let out = command.output().expect("helm runs");
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(documents(&String::from_utf8(out.stdout).unwrap()))
}

/// Arguments of the operator.
fn arguments(all: &[Value]) -> Vec<Value> {
    let deployment = named(all, "Deployment", "vlm-operator");
    deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|d| d["kind"] == kind).collect()
}

fn named<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    of_kind(all, kind).into_iter().find(|d| d["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn helm_lint_is_clean() {
    let out = Command::new(tool("helm")).args(["lint", "--strict", CHART]).output().expect("helm runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn the_default_installation_has_a_crd_and_rights_in_every_namespace() {
    let all = render(&[]).unwrap();
    assert_eq!(of_kind(&all, "CustomResourceDefinition").len(), 1);
    let roles: Vec<_> = of_kind(&all, "ClusterRole").iter().map(|role| role["metadata"]["name"].clone()).collect();
    assert_eq!(roles, ["vlm-operator-gateway", "vlm-operator-models", "vlm-operator-nodes"]);
    let args = arguments(&all);
    for arg in ["--runtime-image=localhost/vlm-runtime:0.1.0", "--runtime-cuda-image=localhost/vlm-runtime-cuda:0.1.0"]
    {
        assert!(args.contains(&Value::from(arg)), "{args:?}");
    }
}

#[test]
fn watched_namespaces_get_roles_and_there_is_no_cluster_role() {
    let all = render(&["watchNamespaces={team-a,team-b}"]).unwrap();
    assert!(of_kind(&all, "ClusterRole").is_empty() && of_kind(&all, "ClusterRoleBinding").is_empty());
    let everywhere = render(&[]).unwrap();
    for namespace in ["team-a", "team-b"] {
        for kind in ["Role", "RoleBinding"] {
            let found = of_kind(&all, kind);
            let here: Vec<_> = found.iter().filter(|r| r["metadata"]["namespace"] == namespace).collect();
            assert_eq!(here.len(), 2, "{kind} in {namespace}");
            for role in here.into_iter().filter(|_| kind == "Role") {
                let name = role["metadata"]["name"].as_str().unwrap();
                assert_eq!(role["rules"], named(&everywhere, "ClusterRole", name)["rules"]);
            }
        }
    }
    let args = arguments(&all);
    assert!(args.contains(&Value::from("--watch-namespaces=team-a,team-b")), "{args:?}");
    assert!(!args.contains(&Value::from("--watch-nodes")), "{args:?}");
}

#[test]
fn nodes_are_watched_where_that_is_allowed_and_the_gpu_types_always() {
    for (settings, watches) in [
        (vec![], true),
        (vec!["nodes.watch=false"], false),
        (vec!["watchNamespaces={team-a}"], false),
        (vec!["watchNamespaces={team-a}", "nodes.watch=true"], true),
    ] {
        let all = render(&settings).unwrap();
        assert_eq!(arguments(&all).contains(&Value::from("--watch-nodes")), watches, "{settings:?}");
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            let nodes = of_kind(&all, kind).iter().any(|role| role["metadata"]["name"] == "vlm-operator-nodes");
            assert_eq!(nodes, watches, "{settings:?}: {kind}");
        }
        assert!(arguments(&all).contains(&Value::from("--gpu-types=vlm-operator-gpu-types")));
        let roles = of_kind(&all, "Role");
        let role = roles.iter().find(|role| role["metadata"]["name"] == "vlm-operator-gpu-types").unwrap();
        assert_eq!(role["rules"][0]["resourceNames"], serde_json::json!(["vlm-operator-gpu-types"]), "this one alone");
    }
}

#[test]
fn pod_monitors_are_there_only_where_their_definition_is() {
    assert!(of_kind(&render(&[]).unwrap(), "PodMonitor").is_empty());
    let settings = ["watchNamespaces={team-a}", "prometheus.podMonitorLabels.release=main"];
    let all = render_for(&settings, &["monitoring.coreos.com/v1/PodMonitor"]).unwrap();
    let monitors = of_kind(&all, "PodMonitor");
    assert_eq!(monitors.len(), 3);
    assert!(monitors.iter().all(|m| m["metadata"]["labels"]["release"] == "main"));
    assert!(monitors.iter().any(|m| m["spec"]["namespaceSelector"]["matchNames"][0] == "team-a"));
}

#[test]
fn the_model_servers_tag_can_be_pinned() {
    let all = render(&["image.tag=2.0", "image.runtimeTag=1.0"]).unwrap();
    let operator = &named(&all, "Deployment", "vlm-operator")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(operator["image"], "localhost/vlm-operator:2.0");
    let args = arguments(&all);
    assert!(args.contains(&Value::from("--runtime-image=localhost/vlm-runtime:1.0")), "{args:?}");
    assert!(args.contains(&Value::from("--runtime-cuda-image=localhost/vlm-runtime-cuda:1.0")), "{args:?}");
    let args = arguments(&render(&["image.cuda=registry/gpu/server:7"]).unwrap());
    assert!(args.contains(&Value::from("--runtime-cuda-image=registry/gpu/server:7")), "{args:?}");
}

#[test]
fn a_mirror_of_the_hub_is_handed_to_the_operator() {
    let given = |settings: &[&str]| Value::from(arguments(&render(settings).unwrap())).to_string();
    assert!(!given(&[]).contains("--hub-endpoint"));
    assert!(given(&["hub.endpoint=https://mirror/hf"]).contains("--hub-endpoint=https://mirror/hf"));
}

#[test]
fn the_gateway_reads_models_and_endpoints_and_writes_nothing_but_status() {
    let all = render(&[]).unwrap();
    let mut rights = Vec::new();
    for rule in named(&all, "ClusterRole", "vlm-operator-gateway")["rules"].as_array().unwrap() {
        rights.push(format!("{} {}", rule["resources"], rule["verbs"]));
    }
    assert_eq!(
        rights,
        [
            r#"["visionmodels"] ["list","watch"]"#,
            r#"["visionmodels/status"] ["patch"]"#,
            r#"["endpointslices"] ["list","watch"]"#
        ]
    );
    let deployment = named(&all, "Deployment", "vlm-operator-gateway");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 315);
    assert!(pod["containers"][0]["args"].as_array().unwrap().contains(&Value::from("--max-bodies-bytes=536870912")));
    assert_eq!(named(&all, "PodDisruptionBudget", "vlm-operator-gateway")["spec"]["maxUnavailable"], 1);
    assert!(arguments(&all).contains(&Value::from("--gateway-service=vlm-operator-gateway")));
}

#[test]
fn streams_go_on_elsewhere_where_there_is_a_key_that_stays() {
    // Without a cluster, a key would be another one at each rendering.
    let all = render(&[]).unwrap();
    assert!(of_kind(&all, "Secret").is_empty());
    assert!(!all.iter().any(|object| object.to_string().contains("continuation-key-file")));
    let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let given = [format!("gateway.continuation.publicKey={key}"), "gateway.continuation.secretName=own".to_owned()];
    let all = render(&[&given[0], &given[1]]).unwrap();
    assert!(arguments(&all).contains(&Value::from(format!("--gateway-public-key={key}"))));
    assert!(of_kind(&all, "Secret").is_empty(), "the private key is nobody's but the Secret's");
    let mounting: Vec<_> = all.iter().filter(|object| object.to_string().contains("\"secretName\":\"own\"")).collect();
    assert_eq!(mounting.len(), 1);
    assert_eq!(mounting[0]["metadata"]["name"], "vlm-operator-gateway", "only the gateway's pods mount it");
}

#[test]
fn the_operator_writes_conditions_of_pods_only_where_a_gateway_reaches_them() {
    for (setting, expected) in [("gateway.enabled=true", 1), ("gateway.enabled=false", 0)] {
        let all = render(&[setting]).unwrap();
        let rules = named(&all, "ClusterRole", "vlm-operator-models")["rules"].as_array().unwrap();
        let of_status: Vec<_> = rules.iter().filter(|rule| rule["resources"][0] == "pods/status").collect();
        assert_eq!(of_status.len(), expected, "{setting}");
        assert!(of_status.iter().all(|rule| rule["verbs"] == serde_json::json!(["patch"])));
    }
}

#[test]
fn without_the_gateway_nothing_of_it_is_left() {
    let all = render(&["gateway.enabled=false"]).unwrap();
    let left: Vec<_> =
        all.iter().filter(|d| d["kind"] != "CustomResourceDefinition" && d.to_string().contains("gateway")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn no_rule_touches_secrets_or_uses_a_wildcard() {
    for role in render(&[]).unwrap().iter().filter(|d| d["kind"] == "ClusterRole" || d["kind"] == "Role") {
        for rule in role["rules"].as_array().unwrap() {
            for list in ["apiGroups", "resources", "verbs"] {
                for item in rule[list].as_array().unwrap() {
                    assert!(item != "*" && item != "secrets", "{rule}");
                }
            }
        }
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (setting, name) in [
        ("replicas=0", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("prometheus.url=ftp://x", "url"),
        ("watchNamespace=a", "watchNamespace"),
        ("gateway.replicas=0", "replicas"),
        ("gateway.service.type=Ingress", "type"),
        ("gateway.maxBodyBytes=1", "maxBodyBytes"),
        ("gateway.continuation.publicKey=AAAA", "publicKey"),
        ("gateway.continuation.secretName=own", "secretName"),
        ("hub.endpoint=ftp://x", "endpoint"),
        ("hub.endpoint=https://user:password@x", "endpoint"),
        ("watchNamespaces=a", "watchNamespaces"),
        ("watchNamespaces={Team}", "watchNamespaces"),
        ("watchNamespaces={a,a}", "watchNamespaces"),
        ("image.runtimeTag=a b", "runtimeTag"),
        ("image.cuda=a b", "cuda"),
        ("nodes.watch=sometimes", "watch"),
        ("resources.cpu=1", "cpu"),
        ("logFormat=xml", "logFormat"),
        ("image.pullSecrets=one", "pullSecrets"),
        ("image.prefix=UPPER", "prefix"),
        ("gpuTypes.UPPER.untested=true", "UPPER"),
        ("gpuTypes.mine.memoryGB=24", "memoryGB"),
        ("gpuTypes.mine.price.usdPerHour=-1", "usdPerHour"),
    ] {
        let error = render(&[setting]).expect_err(setting);
        assert!(error.contains(name), "{setting}: {error}");
    }
}

/// The catalogue of GPU types as it is installed.
fn gpu_types(flags: &[&str]) -> GpuTypes {
    let all = render_with(flags).unwrap();
    let map = of_kind(&all, "ConfigMap").into_iter().find(|map| map["metadata"]["name"] == "vlm-operator-gpu-types");
    GpuTypes::parse(map.unwrap()["data"]["gpu-types.yaml"].as_str().unwrap()).unwrap()
}

#[test]
fn the_gpu_catalogue_is_installed_as_it_is_in_the_chart() {
    let file = std::fs::read_to_string(format!("{CHART}/gpu-types.yaml")).unwrap();
    assert_eq!(gpu_types(&[]), GpuTypes::parse(&file).unwrap());
}

#[test]
fn gpu_types_of_ones_own_are_added_change_others_and_take_some_away() {
    let own = r#"gpuTypes={
        "ours": {"memoryBytes": 25769803776, "computeCapability": "8.6"},
        "nvidia-l4": {"price": {"usdPerHour": 0.5, "source": "ours"}},
        "nvidia-b200": {}
    }"#;
    let types = gpu_types(&["--set-json", own]);
    assert_eq!(types.get("ours").unwrap().memory_bytes, 25_769_803_776);
    let l4 = types.get("nvidia-l4").unwrap();
    assert_eq!((l4.memory_bytes, l4.price.as_ref().unwrap().source.as_str()), (24_152_899_584, "ours"));
    assert!(types.get("nvidia-b200").is_err());
}

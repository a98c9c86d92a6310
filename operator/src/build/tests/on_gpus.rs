//! What is different in the pods of a model that asks for a GPU.

use super::*;
use crate::plan::placement::Gpu;

/// The plan of a model on a GPU, with settings of the person beside those of the type.
fn gpu_plan(pod: Value) -> Plan {
    let kind = json!({
        "memoryBytes": 24_152_899_584_u64, "computeCapability": "8.9", "runtimeClassName": "nvidia",
        "nodes": [
            {"nvidia.com/gpu.product": ["NVIDIA-L4"]},
            {"cloud.google.com/gke-accelerator": ["nvidia-l4"], "cloud.google.com/gke-gpu-partition-size": []},
        ],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    });
    let gpu = Gpu { name: "nvidia-l4".to_owned(), kind: serde_json::from_value(kind).unwrap() };
    Plan { gpu: Some(gpu), pod: serde_json::from_value(pod).unwrap(), ..plan() }
}

fn pod(plan: &Plan) -> Value {
    deployment(plan)["spec"]["template"]["spec"].clone()
}

#[test]
fn each_replica_gets_one_gpu_and_the_flag_to_use_it() {
    let server = &pod(&gpu_plan(json!({})))["containers"][0];
    assert_eq!(server["resources"], json!({"limits": {"nvidia.com/gpu": "1"}}));
    let arguments: Vec<_> = server["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(arguments.windows(2).any(|pair| pair == ["--device", "cuda"]), "{arguments:?}");
    let cpu = pod(&plan())["containers"][0]["args"].to_string();
    assert!(!cpu.contains("--device"), "{cpu}");
}

#[test]
fn any_of_the_ways_to_name_a_node_is_enough() {
    let terms =
        &pod(&gpu_plan(json!({})))["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        terms["nodeSelectorTerms"],
        json!([
            {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L4"]}]},
            {"matchExpressions": [
                {"key": "cloud.google.com/gke-accelerator", "operator": "In", "values": ["nvidia-l4"]},
                {"key": "cloud.google.com/gke-gpu-partition-size", "operator": "DoesNotExist"},
            ]},
        ])
    );
    let mut anywhere = gpu_plan(json!({}));
    anywhere.gpu.as_mut().unwrap().kind.nodes.clear();
    assert_eq!(pod(&anywhere)["affinity"], Value::Null, "a type that is wherever its resource is");
}

#[test]
fn what_the_person_sets_is_kept_beside_what_the_type_needs() {
    let taint = json!({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
    let own = json!({"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"});
    let pod = pod(&gpu_plan(json!({
        "resources": {"limits": {"memory": "16Gi", "nvidia.com/gpu": 2}, "requests": {"cpu": "2", "nvidia.com/gpu": 2}},
        "nodeSelector": {"zone": "a"}, "tolerations": [own, taint], "env": [{"name": "A", "value": "b"}],
    })));
    assert_eq!(pod["nodeSelector"], json!({"zone": "a"}));
    assert_eq!(pod["tolerations"], json!([own, taint]), "none twice");
    assert_eq!(pod["runtimeClassName"], "nvidia");
    let server = &pod["containers"][0];
    let limits = json!({"memory": "16Gi", "nvidia.com/gpu": "1"});
    assert_eq!(server["resources"], json!({"limits": limits, "requests": {"cpu": "2"}}), "one GPU a replica");
    assert_eq!(server["env"][0], json!({"name": "A", "value": "b"}));
}

#[test]
fn compiled_kernels_have_a_place_that_can_be_written() {
    let pod_of = pod(&gpu_plan(json!({})));
    assert_eq!(pod_of["volumes"][1], json!({"name": "cuda-cache", "emptyDir": {}}));
    let server = &pod_of["containers"][0];
    assert_eq!(server["volumeMounts"][1], json!({"name": "cuda-cache", "mountPath": "/cuda-cache"}));
    assert_eq!(server["env"], json!([{"name": "CUDA_CACHE_PATH", "value": "/cuda-cache"}]));
    let own = pod(&gpu_plan(json!({"env": [{"name": "CUDA_CACHE_PATH", "value": "/elsewhere"}]})));
    assert_eq!(own["containers"][0]["env"], json!([{"name": "CUDA_CACHE_PATH", "value": "/elsewhere"}]));
}

/// A new price or a remark must not restart anything.
#[test]
fn prices_are_no_part_of_the_template() {
    let cheap = gpu_plan(json!({}));
    let mut dear = cheap.clone();
    let price = json!({"usdPerHour": 9.0, "source": "somebody"});
    dear.gpu.as_mut().unwrap().kind.price = serde_json::from_value(price).unwrap();
    let template = |plan: &Plan| build(plan, &owner()).template;
    assert_eq!(template(&cheap), template(&dear));
    assert_ne!(template(&cheap), template(&plan()));
}

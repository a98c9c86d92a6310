//! Edits of the catalogue and of nodes, and who is told of them.

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node as KubeNode};
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;

const L4: &str = "nvidia-l4: {memoryBytes: 24152899584, computeCapability: '8.9'}\n";
const PLACE: &str = "system/gpu-types";

fn map(yaml: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "gpu-types"}, "data": {"gpu-types.yaml": yaml}})).unwrap()
}

fn spec() -> VisionModelSpec {
    serde_json::from_value(json!({"model": {"uri": "pvc://w/x"}, "gpu": {"type": "nvidia-l4"}})).unwrap()
}

fn node(name: &str, count: &str, heartbeat: &str) -> KubeNode {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "annotations": {"seen": heartbeat}},
        "status": {"allocatable": {
            "cpu": "8", "nvidia.com/gpu": count, "example.com/nic": "0", "hugepages-2Mi": "0",
            "attachable.kubernetes.io/volumes": "25",
        }},
    }))
    .unwrap()
}

/// Whether somebody was told of a change since the last look.
fn told(changes: &mut (impl Stream<Item = ()> + Unpin)) -> bool {
    changes.next().now_or_never().is_some()
}

#[test]
fn an_edit_of_the_catalogue_is_a_change_and_a_touch_is_none() {
    let (gpus, metrics) = (Gpus::default(), Metrics::new().unwrap());
    let mut changes = Box::pin(gpus.changes());
    assert!(matches!(gpus.wanted(&spec()), Wanted::Unread) && !told(&mut changes));
    catalogue::take_in(&gpus, Some(&map(L4)), PLACE, &metrics);
    assert!(gpus.wanted(&spec()).gpu().is_some() && told(&mut changes));
    catalogue::take_in(&gpus, Some(&map(&format!("# a remark\n{L4}"))), PLACE, &metrics);
    assert!(!told(&mut changes), "nothing that is known has changed");
    catalogue::take_in(
        &gpus,
        Some(&map("nvidia-h100: {memoryBytes: 85520809984, computeCapability: '9.0'}")),
        PLACE,
        &metrics,
    );
    assert!(matches!(gpus.wanted(&spec()), Wanted::Unknown(_)) && told(&mut changes));
    catalogue::take_in(&gpus, None, PLACE, &metrics);
    let Wanted::Unknown(problem) = gpus.wanted(&spec()) else { panic!() };
    assert!(problem.message.contains("the ConfigMap system/gpu-types does not exist"), "{}", problem.message);
}

#[test]
fn a_catalogue_that_cannot_be_used_keeps_the_last_that_could_and_is_counted() {
    let (gpus, metrics) = (Gpus::default(), Metrics::new().unwrap());
    catalogue::take_in(&gpus, Some(&map("nvidia-l4: {memoryBytes: 1}")), PLACE, &metrics);
    let Wanted::Unknown(problem) = gpus.wanted(&spec()) else { panic!() };
    assert!(
        problem.message.contains("system/gpu-types cannot be used: the GPU type \"nvidia-l4\""),
        "{}",
        problem.message
    );
    catalogue::take_in(&gpus, Some(&map(L4)), PLACE, &metrics);
    let mut changes = Box::pin(gpus.changes());
    for broken in ["nvidia-l4: {memoryBytes: 1}", "[", "a: b"] {
        catalogue::take_in(&gpus, Some(&map(broken)), PLACE, &metrics);
        assert!(gpus.wanted(&spec()).gpu().is_some(), "{broken}");
    }
    catalogue::take_in(&gpus, Some(&ConfigMap::default()), PLACE, &metrics);
    assert!(gpus.wanted(&spec()).gpu().is_some() && !told(&mut changes));
    let page = metrics.page().unwrap();
    for line in [
        "vlm_operator_gpu_catalogue_reads_total{result=\"failed\"} 5",
        "vlm_operator_gpu_catalogue_reads_total{result=\"ok\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[test]
fn of_a_node_labels_and_devices_are_kept_and_signs_of_life_are_no_change() {
    let (gpus, mut listed) = (Gpus::default(), Nodes::new());
    let mut changes = Box::pin(gpus.changes());
    let mut see = |event| nodes::take_in(&gpus, &mut listed, &event);
    see(Event::Init);
    see(Event::InitApply(node("one", "4", "1")));
    assert!(gpus.nodes().is_none(), "half a list is no list");
    see(Event::InitDone);
    assert!(told(&mut changes));
    let one = gpus.nodes().unwrap()["one"].clone();
    assert_eq!(one.devices, [("nvidia.com/gpu".to_owned(), 4)].into());
    assert_eq!(one.labels["nvidia.com/gpu.product"], "NVIDIA-L4");
    see(Event::Apply(node("one", "4", "2")));
    assert!(!told(&mut changes), "a heartbeat");
    see(Event::Apply(node("two", "1", "1")));
    assert!(told(&mut changes));
    see(Event::Apply(node("one", "0", "3")));
    assert!(told(&mut changes) && gpus.nodes().unwrap()["one"].devices.is_empty());
    see(Event::Delete(node("two", "1", "1")));
    assert!(told(&mut changes) && gpus.nodes().unwrap().len() == 1);
    see(Event::Init);
    see(Event::InitDone);
    assert!(told(&mut changes) && gpus.nodes().unwrap().is_empty(), "a new list forgets what is gone");
}

#[test]
fn a_node_has_a_type_by_its_labels_and_its_device() {
    let gpu: vlm_catalog::gpu::GpuType = serde_json::from_value(json!({
        "memoryBytes": 24_152_899_584_u64, "computeCapability": "8.9",
        "nodes": [{"nvidia.com/gpu.product": ["NVIDIA-L4"]}],
    }))
    .unwrap();
    let fit = Node::from(&node("one", "1", ""));
    assert!(fit.has(&gpu));
    assert!(!Node::from(&node("one", "0", "")).has(&gpu), "labels without a device");
    assert!(!Node { labels: std::collections::BTreeMap::new(), ..fit }.has(&gpu), "a device without the labels");
}

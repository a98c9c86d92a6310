//! What is said of models that ask for a GPU: the image, the cost, and why no node takes their pods.

use vlm_catalog::gpu::GpuType;

use super::*;
use crate::observe::gpus::{Node, Nodes};

fn node(product: &str, count: u64) -> Node {
    Node {
        labels: [("nvidia.com/gpu.product".to_owned(), product.to_owned())].into(),
        devices: [("nvidia.com/gpu".to_owned(), count)].into(),
    }
}

/// A model on an L4 whose pods no node takes, in a cluster of these nodes.
fn waiting_pods(nodes: &[Node]) -> Scene {
    let mut scene = Scene::new(2);
    scene.model.spec = serde_json::from_value(json!({
        "model": {"uri": "pvc://weights/tiny"}, "gpu": {"type": "nvidia-l4"},
    }))
    .unwrap();
    let kind = json!({
        "memoryBytes": 24_152_899_584_u64, "computeCapability": "8.9", "nodes": [{"nvidia.com/gpu.product": ["NVIDIA-L4"]}],
        "price": {"usdPerHour": 0.5, "source": "us"},
    });
    let kind: GpuType = serde_json::from_value(kind).unwrap();
    scene.gpu = Some(Gpu { name: "nvidia-l4".to_owned(), kind });
    scene.deployed(2, 2, 0);
    scene.deployment_says("Progressing", "True", "ReplicaSetUpdated", "");
    scene.pods(&["p1", "p2"].map(|name| {
        json!({
            "metadata": {"name": name, "annotations": {labels::TEMPLATE: TEMPLATE}},
            "status": {"phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            }]},
        })
    }));
    see(&mut scene, nodes);
    scene
}

fn see(scene: &mut Scene, nodes: &[Node]) {
    let nodes: Nodes = nodes.iter().enumerate().map(|(i, node)| (format!("node-{i}"), node.clone())).collect();
    scene.observed.nodes = Some(Arc::new(nodes));
    scene.report();
}

#[test]
fn a_type_that_no_node_has_stalls_only_after_the_deadline_and_clears_when_a_node_comes() {
    let mut scene = waiting_pods(&[node("NVIDIA-T4", 1)]);
    assert_eq!(scene.ready(), ("False", "NoMatchingNode"));
    assert_eq!(scene.says(RECONCILING), ("True", "NoMatchingNode"), "a node autoscaler may be at work");
    assert!(scene.condition(READY).message.contains("NVIDIA-T4 (1 nvidia.com/gpu on 1 node)"));
    assert_eq!(scene.status.failures.len(), 2);
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
    assert_eq!(scene.says(STALLED), ("True", "NoMatchingNode"));
    see(&mut scene, &[node("NVIDIA-T4", 1), node("NVIDIA-L4", 1)]);
    assert_eq!((scene.ready(), scene.says(STALLED).0), (("False", "WaitingForGPU"), "False"));
    scene.deployed(2, 2, 2);
    scene.pods(&[]);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
}

#[test]
fn a_free_gpu_is_waited_for_without_end() {
    let mut scene = waiting_pods(&[node("NVIDIA-L4", 1)]);
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
    assert_eq!(scene.ready(), ("False", "WaitingForGPU"));
    assert_eq!(scene.says(STALLED).0, "False");
}

#[test]
fn the_cost_is_that_of_the_wanted_replicas_whether_they_run_or_not() {
    let mut scene = waiting_pods(&[]);
    let cost = |scene: &Scene| scene.status.cost.clone().map(|cost| cost.per_hour);
    assert_eq!(cost(&scene).as_deref(), Some("1.00"));
    assert_eq!(scene.status.resolved.as_ref().unwrap().image, "cuda");
    scene.scale.desired = 3;
    scene.report();
    assert_eq!(cost(&scene).as_deref(), Some("1.50"));
    scene.gpu.as_mut().unwrap().kind.price = None;
    scene.report();
    assert_eq!(cost(&scene), None);
    let mut cpu = Scene::serving(1);
    cpu.report();
    assert_eq!((cost(&cpu), cpu.status.resolved.unwrap().image.as_str()), (None, "i"));
}

#[test]
fn an_unknown_type_stalls_at_once_while_what_ran_before_goes_on_answering() {
    let mut scene = Scene::serving(1);
    scene.model.spec.gpu = serde_json::from_value(json!({"type": "nvidia-l5"})).unwrap();
    scene.model.metadata.generation = Some(2);
    scene.observed.deployment = Some(Arc::new(scene.deployment.clone()));
    scene.refused = Some(Problem::new(Trouble::GpuTypeUnknown, "the GPU type is not in the catalogue"));
    scene.report();
    assert_eq!((scene.ready(), scene.says(STALLED)), (("False", "GPUTypeUnknown"), ("True", "GPUTypeUnknown")));
    assert_eq!(scene.says(AVAILABLE), ("True", reasons::SERVING));
    assert_eq!(scene.status.cost, None);
}

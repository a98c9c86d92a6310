//! Why no node takes a pod that asks for a GPU: there is no node with its type, or all such GPUs are in use. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use vlm_crds::status::reasons::Trouble;

use super::{conditions::shorten, failures::Problem};
use crate::observe::gpus::{Node, Nodes};
use crate::plan::placement::Gpu;

/// Products that a message names.
const SHOWN: usize = 8;
/// Labels that say what GPU a node has, the most telling first.
const PRODUCT_LABELS: [&str; 5] = [
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "node.kubernetes.io/instance-type",
];
/// Characters of what the scheduler says.
const SCHEDULER_MAX: usize = 600;

/// Says more precisely what it means that no node takes a pod of a model that asks for `gpu`.
pub(super) fn explain(problem: Problem, gpu: &Gpu, nodes: Option<&Nodes>) -> Problem {
    if problem.trouble != Trouble::Unschedulable {
        return problem;
    }
    if let Some(nodes) = nodes
        && !nodes.values().any(|node| node.has(&gpu.kind))
    {
        return Problem { trouble: Trouble::NoMatchingNode, message: nowhere(gpu, nodes), ..problem };
    }
    if !problem.message.contains(&format!("Insufficient {}", gpu.kind.resource)) {
        return problem;
    }
    let message = format!(
        "every GPU of the type {} is in use; the pod starts when one is free: {}",
        gpu.name,
        shorten(&problem.message, SCHEDULER_MAX)
    );
    Problem { trouble: Trouble::WaitingForGpu, message, ..problem }
}

fn nowhere(gpu: &Gpu, nodes: &Nodes) -> String {
    let (name, resource) = (&gpu.name, &gpu.kind.resource);
    let without_device =
        nodes.values().filter(|node| !gpu.kind.nodes.is_empty() && gpu.kind.is_on(&node.labels)).count();
    if without_device > 0 {
        let (nodes, have) = if without_device == 1 { ("node", "has") } else { ("nodes", "have") };
        return format!(
            "{without_device} {nodes} {have} the labels of the GPU type {name}, but no {resource} for pods; check \
             that the GPU's device plugin runs there"
        );
    }
    format!(
        "no node has a GPU of the type {name}; {}; add such a node, or name another type in spec.gpu.type",
        products(resource, nodes)
    )
}

/// What kind of GPU, by which resource, and how many of it on how many nodes.
fn products(asked: &str, nodes: &Nodes) -> String {
    let mut found = BTreeMap::<(&str, &str), (u64, usize)>::new();
    for node in nodes.values() {
        for (resource, count) in node.devices.iter().filter(|(resource, _)| is_gpu(resource, asked)) {
            let (gpus, on) = found.entry((product(node), resource)).or_default();
            *gpus = gpus.saturating_add(*count);
            *on += 1;
        }
    }
    if found.is_empty() {
        return "the nodes have no GPUs at all".to_owned();
    }
    let mut text = "the nodes have ".to_owned();
    for (i, ((product, resource), (count, on))) in found.iter().take(SHOWN).enumerate() {
        let (comma, s) = (if i > 0 { ", " } else { "" }, if *on == 1 { "" } else { "s" });
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{} ({count} {resource} on {on} node{s})", shorten(product, 63));
    }
    if found.len() > SHOWN {
        let _ = write!(text, " and {} other kinds", found.len() - SHOWN);
    }
    text
}

fn product(node: &Node) -> &str {
    let label = PRODUCT_LABELS.iter().find_map(|label| node.labels.get(*label));
    label.map_or("GPUs of an unknown kind", String::as_str)
}

/// Other resources of the same vendor are GPUs as well, or slices of them; network cards are not.
fn is_gpu(resource: &str, asked: &str) -> bool {
    let domain = |resource: &str| resource.split_once('/').map(|(domain, _)| domain.to_owned());
    resource.ends_with("/gpu") || domain(resource) == domain(asked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FULL: &str =
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't match Pod's node affinity/selector.";

    fn gpu() -> Gpu {
        let kind = json!({"memoryBytes": 24_152_899_584_u64, "computeCapability": "8.9",
                          "nodes": [{"nvidia.com/gpu.product": ["NVIDIA-L4"]}]});
        Gpu { name: "nvidia-l4".to_owned(), kind: serde_json::from_value(kind).unwrap() }
    }

    /// Nodes with a product, a resource and its count.
    fn nodes(all: &[(&str, &str, u64)]) -> Nodes {
        let node = |(product, resource, count): &(&str, &str, u64)| Node {
            labels: [("nvidia.com/gpu.product".to_owned(), (*product).to_owned())].into(),
            devices: [((*resource).to_owned(), *count)].into_iter().filter(|(_, count)| *count > 0).collect(),
        };
        all.iter().enumerate().map(|(i, given)| (format!("node-{i}"), node(given))).collect()
    }

    fn explained(message: &str, nodes: Option<&Nodes>) -> Problem {
        explain(Problem::new(Trouble::Unschedulable, message), &gpu(), nodes)
    }

    #[test]
    fn a_type_that_no_node_has_is_told_with_what_the_nodes_have() {
        let others = nodes(&[
            ("NVIDIA-L40S", "nvidia.com/gpu", 8),
            ("NVIDIA-L40S", "nvidia.com/gpu", 4),
            ("NVIDIA-H100-NVL", "nvidia.com/mig-1g.12gb", 7),
            ("a-network-card", "rdma/hca", 1),
        ]);
        let problem = explained("0/4 nodes are available", Some(&others));
        assert_eq!(problem.trouble, Trouble::NoMatchingNode);
        assert_eq!(
            problem.message,
            "no node has a GPU of the type nvidia-l4; the nodes have NVIDIA-H100-NVL (7 nvidia.com/mig-1g.12gb on 1 node), \
             NVIDIA-L40S (12 nvidia.com/gpu on 2 nodes); add such a node, or name another type in spec.gpu.type"
        );
        let none = explained("0/1 nodes are available", Some(&nodes(&[("x", "rdma/hca", 1)])));
        assert!(none.message.contains("; the nodes have no GPUs at all; add"), "{}", none.message);
    }

    #[test]
    fn a_node_with_the_labels_and_no_device_points_to_the_device_plugin() {
        let problem = explained("0/1 nodes are available", Some(&nodes(&[("NVIDIA-L4", "nvidia.com/gpu", 0)])));
        assert_eq!(problem.trouble, Trouble::NoMatchingNode);
        assert!(
            problem.message.contains("1 node has the labels") && problem.message.contains("device plugin"),
            "{}",
            problem.message
        );
    }

    #[test]
    fn a_full_node_is_waited_for_and_other_obstacles_stay_what_they_are() {
        let full = nodes(&[("NVIDIA-L4", "nvidia.com/gpu", 1), ("NVIDIA-L40S", "nvidia.com/gpu", 1)]);
        let problem = explained(FULL, Some(&full));
        assert_eq!(problem.trouble, Trouble::WaitingForGpu);
        assert!(problem.message.contains("nvidia-l4") && problem.message.contains(FULL), "{}", problem.message);
        let taint = "0/2 nodes are available: 2 node(s) had untolerated taint {a: b}.";
        assert_eq!(explained(taint, Some(&full)).trouble, Trouble::Unschedulable);
    }

    #[test]
    fn without_a_look_at_nodes_only_the_scheduler_speaks() {
        assert_eq!(explained("0/4 nodes are available", None).trouble, Trouble::Unschedulable);
        assert_eq!(explained(FULL, None).trouble, Trouble::WaitingForGpu);
    }

    #[test]
    fn many_kinds_of_gpus_make_no_long_message() {
        let names: Vec<_> = (0..100).map(|i| format!("NVIDIA-{i:060}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "nvidia.com/gpu", 1)).collect();
        let message = explained("0/100 nodes are available", Some(&nodes(&all))).message;
        assert!(message.len() < 1000 && message.contains("and 92 other kinds"), "{message}");
    }
}

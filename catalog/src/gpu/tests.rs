//! The shipped catalogue has what it promises; what people write beside it is read or refused by name.

use super::*;

const SHIPPED: &str = include_str!("../../../charts/vlm-operator/gpu-types.yaml");

fn shipped() -> GpuTypes {
    GpuTypes::parse(SHIPPED).unwrap()
}

fn error(yaml: &str) -> String {
    GpuTypes::parse(yaml).unwrap_err().to_string()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_promised_types_are_shipped_with_price_speed_and_nodes() {
    let types = shipped();
    for (name, gib, capability) in [
        ("nvidia-l4", 22, "8.9"),
        ("nvidia-a10", 22, "8.6"),
        ("nvidia-a10g", 22, "8.6"),
        ("nvidia-l40s", 44, "8.9"),
        ("nvidia-rtx-4090", 23, "8.9"),
        ("nvidia-a100-40gb", 40, "8.0"),
        ("nvidia-a100-80gb", 80, "8.0"),
        ("nvidia-h100", 79, "9.0"),
        ("nvidia-h100-nvl", 93, "9.0"),
        ("nvidia-h200", 140, "9.0"),
        ("nvidia-b200", 179, "10.0"),
        ("nvidia-a100-80gb-mig-3g.40gb", 39, "8.0"),
        ("nvidia-h100-mig-2g.20gb", 19, "9.0"),
        ("nvidia-h200-mig-3g.71gb", 65, "9.0"),
    ] {
        let gpu = types.get(name).unwrap();
        assert_eq!((gpu.memory_bytes >> 30, gpu.compute_capability.to_string().as_str()), (gib, capability), "{name}");
        assert!(gpu.price.is_some() && gpu.speed.is_some() && !gpu.nodes.is_empty() && !gpu.tolerations.is_empty());
        assert_eq!(gpu.untested, name == "nvidia-b200", "{name}");
    }
    for (name, gpu) in types.iter() {
        let slice = name.split_once("-mig-").map(|(_, profile)| format!("nvidia.com/mig-{profile}"));
        assert_eq!(gpu.resource, slice.unwrap_or_else(|| "nvidia.com/gpu".to_owned()), "{name}");
    }
}

#[test]
fn nodes_of_every_cloud_are_told_apart() {
    let types = shipped();
    let on = |pairs: &[(&str, &str)]| -> Vec<String> {
        let labels = labels(pairs);
        let found = types.iter().filter(|(name, gpu)| !name.contains("-mig-") && gpu.is_on(&labels));
        found.map(|(name, _)| name.to_owned()).collect()
    };
    for (node, expected) in [
        (&[("nvidia.com/gpu.product", "NVIDIA-L4")][..], "nvidia-l4"),
        (&[("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB")], "nvidia-a100-80gb"),
        (&[("nvidia.com/gpu.product", "NVIDIA-A100-PCIE-40GB")], "nvidia-a100-40gb"),
        (&[("nvidia.com/gpu.product", "NVIDIA-H100-NVL")], "nvidia-h100-nvl"),
        (&[("nvidia.com/gpu.product", "NVIDIA-GeForce-RTX-4090")], "nvidia-rtx-4090"),
        (&[("cloud.google.com/gke-accelerator", "nvidia-tesla-a100")], "nvidia-a100-40gb"),
        (&[("cloud.google.com/gke-accelerator", "nvidia-h200-141gb")], "nvidia-h200"),
        (&[("karpenter.k8s.aws/instance-gpu-name", "a10g")], "nvidia-a10g"),
        (&[("eks.amazonaws.com/instance-gpu-name", "l40s")], "nvidia-l40s"),
        (
            &[("karpenter.k8s.aws/instance-gpu-name", "a100"), ("karpenter.k8s.aws/instance-gpu-memory", "81920")],
            "nvidia-a100-80gb",
        ),
        (
            &[("karpenter.k8s.aws/instance-gpu-name", "a100"), ("karpenter.k8s.aws/instance-gpu-memory", "40960")],
            "nvidia-a100-40gb",
        ),
        (&[("node.kubernetes.io/instance-type", "Standard_NC40ads_H100_v5")], "nvidia-h100-nvl"),
        (&[("node.kubernetes.io/instance-type", "g6.xlarge")], "nvidia-l4"),
    ] {
        assert_eq!(on(node), [expected], "{node:?}");
    }
    assert!(on(&[]).is_empty() && on(&[("nvidia.com/gpu.product", "Tesla-T4")]).is_empty());
    // A node whose GPUs GKE has cut into slices offers no whole ones.
    let cut =
        [("cloud.google.com/gke-accelerator", "nvidia-l4"), ("cloud.google.com/gke-gpu-partition-size", "1g.5gb")];
    assert!(on(&cut).is_empty());
}

#[test]
fn an_unknown_name_gets_the_nearest_ones() {
    let error = shipped().get("nvidia-h100-80gb").unwrap_err();
    assert!(error.nearest.contains(&"nvidia-h100".to_owned()), "{error}");
    assert!(error.to_string().contains("did you mean"), "{error}");
    let error = shipped().get(&"y".repeat(100_000)).unwrap_err().to_string();
    assert!(error.len() < 300, "{error}");
}

#[test]
fn the_cheapest_that_would_do_is_a_tested_one() {
    let types = shipped();
    let with = |gib: u64| types.cheapest(|gpu| gpu.memory_bytes >= gib << 30);
    assert_eq!(with(150), Some("nvidia-b200"));
    assert_eq!(with(100), Some("nvidia-h200"));
    assert_eq!(with(1000), None);
    let gpu = |usd: u8, more: &str| {
        let price = format!("price: {{usdPerHour: {usd}, source: x}}");
        format!("{{memoryBytes: 25769803776, computeCapability: '8.6', {price}{more}}}")
    };
    let own = format!("a: {}\nb: {}\nc: {}", gpu(1, ", untested: true"), gpu(3, ""), gpu(2, ""));
    assert_eq!(GpuTypes::parse(&own).unwrap().cheapest(|_| true), Some("c"));
    let prices = types.by_price().into_iter().filter_map(|(_, gpu)| gpu.price.as_ref().map(|p| p.usd_per_hour));
    assert!(prices.collect::<Vec<_>>().is_sorted());
}

#[test]
fn a_type_of_ones_own_needs_little() {
    let types = GpuTypes::parse("mine: {memoryBytes: 25769803776, computeCapability: '8.6'}").unwrap();
    let gpu = types.get("mine").unwrap();
    assert_eq!((gpu.resource.as_str(), gpu.price.as_ref(), gpu.untested), ("nvidia.com/gpu", None, false));
    assert!(gpu.is_on(&labels(&[])), "no labels: any node that has the resource");
    assert_eq!(GpuTypes::parse("").unwrap(), GpuTypes::default());
}

#[test]
fn what_is_wrong_is_named_with_type_and_field() {
    let with = |more: &str| error(&format!("mine: {{memoryBytes: 25769803776, computeCapability: '8.6', {more}}}"));
    for (text, expected) in [
        (error("mine: {computeCapability: '8.6'}"), ["mine", "memoryBytes"]),
        (error("mine: {memoryBytes: 24, computeCapability: '8.6'}"), ["memoryBytes is 24", "between"]),
        (error("mine: {memoryBytes: -1, computeCapability: '8.6'}"), ["mine", "-1"]),
        (error("mine: {memoryBytes: 25769803776, computeCapability: eight}"), ["\"eight\"", "8.9"]),
        (error("tesla-t4: {memoryBytes: 16106127360, computeCapability: '7.5'}"), ["tesla-t4", "8.0 or later"]),
        (error("Mine: {memoryBytes: 25769803776, computeCapability: '8.6'}"), ["Mine", "small letters"]),
        (error("3: {}"), ["name", "no text"]),
        (error("mine: 3"), ["mine", "struct GpuType"]),
        (error("[1, 2]"), ["cannot be read", "sequence"]),
        (error("mine: {}\nmine: {}"), ["cannot be read", "duplicate"]),
        (error("a: &a [*a]"), ["cannot be read", "recursion"]),
        (with("memoryGB: 24"), ["mine", "memoryGB"]),
        (with("resource: gpu"), ["resource", "nvidia.com/gpu"]),
        (with("runtimeClassName: 'a b'"), ["runtimeClassName", "RuntimeClass"]),
        (with("nodes: [{}]"), ["nodes", "every node"]),
        (with("nodes: [{'a b': [c]}]"), ["nodes", "a b"]),
        (with("nodes: [{a: ['b c']}]"), ["nodes", "label"]),
        (with("price: {usdPerHour: .nan, source: x}"), ["price.usdPerHour", "NaN"]),
        (with("price: {usdPerHour: -1, source: x}"), ["price.usdPerHour", "-1"]),
        (with("price: {usdPerHour: 1, source: ''}"), ["price.source", "whose"]),
        (with("speed: {memoryBytesPerSecond: 1, tensorFlopsPerSecond: 1e14}"), ["memoryBytesPerSecond", "is 1"]),
        (with("tolerations: [{key: a, operator: Equal, effect: NoSchedule}]"), ["toleration", "Equal"]),
        (with("tolerations: [{key: a, operator: Exists, effect: Never}]"), ["effect", "NoExecute"]),
        (with("tolerations: [{key: '', operator: Exists, effect: NoExecute}]"), ["key", "taint"]),
    ] {
        assert!(expected.iter().all(|part| text.contains(part)), "{text:?} lacks some of {expected:?}");
        assert!(text.len() < 1000 && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn bombs_and_floods_are_refused() {
    let layer = |(from, to): (char, char)| format!("{to}: &{to} [{}]", vec![format!("*{from}"); 9].join(", "));
    let layers = "abcdefghi".chars().zip("bcdefghij".chars()).map(layer).collect::<Vec<_>>();
    let bomb = format!("a: &a [x, x, x, x, x, x, x, x, x]\n{}", layers.join("\n"));
    for text in [bomb, "[".repeat(100_000), "a".repeat(2 << 20)] {
        assert!(error(&text).len() < 500);
    }
    let many: Vec<_> = (0..300).map(|n| format!("gpu-{n}: {{}}")).collect();
    assert!(error(&many.join("\n")).contains("300 types"));
}

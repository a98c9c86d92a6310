//! The arrows between crates, proven from `cargo metadata`, and what the made-up cluster says in our programs' words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::inspection::{Found, Inspection};
use vlm_tests::tools::{documents, root};

/// Crate → the workspace crates that it may depend on.
const ARROWS: [(&str, &[&str]); 10] = [
    ("vlm-catalog", &[]),
    ("vlm-contract", &[]),
    ("vlm-hub", &["vlm-contract"]),
    ("vlm-crds", &["vlm-catalog", "vlm-contract"]),
    ("vlm-runtime", &["vlm-catalog", "vlm-contract", "vlm-hub"]),
    ("vlm-gateway", &["vlm-crds", "vlm-contract"]),
    ("vlm-operator", &["vlm-crds", "vlm-catalog", "vlm-contract", "vlm-hub"]),
    ("kubectl-vlm", &["vlm-crds", "vlm-catalog", "vlm-contract", "vlm-hub"]),
    ("vlm-tests", &["vlm-catalog", "vlm-contract", "vlm-crds"]),
    ("vlm-test-hub", &[]),
];

/// Crate → names that must not stand anywhere below it.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    ("vlm-catalog", &["kube", "candle-core", "tokio"]),
    ("vlm-contract", &["kube", "candle-core", "tokio"]),
    ("vlm-hub", &["kube", "kube-client", "k8s-openapi", "candle-core", "vlm-test-hub"]),
    ("vlm-runtime", &["kube", "kube-client", "kube-core", "k8s-openapi"]),
    ("vlm-operator", &["candle-core", "candle-nn", "candle-transformers", "tokenizers"]),
    ("vlm-gateway", &["candle-core", "candle-nn", "candle-transformers", "tokenizers"]),
    ("kubectl-vlm", &["candle-core", "candle-nn", "candle-transformers", "tokenizers"]),
];

/// Name → names of the packages it links in normal or build dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let out = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let entry = found.entry(name_of[node["id"].as_str().unwrap()].to_owned()).or_default();
        for dep in node["deps"].as_array().unwrap() {
            let linked = dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev");
            if linked {
                entry.insert(name_of[dep["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    found
}

fn below(name: &str, all: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(next) = open.pop() {
        for dep in all.get(&next).into_iter().flatten() {
            if seen.insert(dep.clone()) {
                open.push(dep.clone());
            }
        }
    }
    seen
}

/// Whether a package is one of the workspace.
fn is_ours(name: &str) -> bool {
    name.starts_with("vlm-") || name == "kubectl-vlm"
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let all = dependencies();
    for (name, allowed) in ARROWS {
        let found = all.get(name).unwrap_or_else(|| panic!("package {name} is missing from the workspace"));
        let wrong: Vec<_> = found.iter().filter(|dep| is_ours(dep) && !allowed.contains(&dep.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    let unknown: Vec<_> = all.keys().filter(|n| is_ours(n) && !known.contains(n.as_str())).collect();
    assert!(unknown.is_empty(), "add {unknown:?} to the arrows");
}

#[test]
fn the_runtime_knows_no_kubernetes_and_the_operator_no_tensors() {
    let all = dependencies();
    for (name, forbidden) in FORBIDDEN {
        let found = below(name, &all);
        assert!(!found.is_empty() || name == "vlm-contract", "package {name} is missing");
        for bad in forbidden {
            assert!(!found.contains(*bad), "{bad} stands below {name}");
        }
    }
}

/// Pods on made-up nodes do not run: a stale answer would lead to numbers that no server takes, and no test would see it.
#[test]
fn what_a_made_up_look_tells_is_what_the_example_is() {
    let all = std::fs::read_to_string(root().join("tests/cluster/node/kwok.yaml")).unwrap();
    let stage = documents(&all).into_iter().find(|stage| stage["metadata"]["name"] == "pod-inspected").unwrap();
    let template = stage["spec"]["next"]["statusTemplate"].as_str().unwrap();
    let answer = template.lines().map(str::trim).find(|line| line.starts_with("{\"config\"")).unwrap();
    let told: Inspection = serde_json::from_str(answer).unwrap();
    let config = std::fs::read(root().join("examples/tiny-llava/model/config.json")).unwrap();
    let found = Found { revision: None, weight_bytes: None, tensors: None::<Vec<(&str, &[usize])>> };
    let described = Inspection::new(&serde_json::from_slice(&config).unwrap(), found).unwrap();
    assert_eq!(told.config(), described.config());
    let sizes = [Head::Stored, Head::Tied].map(|head| CheckpointSize::of(told.config(), head).parameters());
    assert!(sizes.contains(&told.size().parameters()), "{:?}", told.size());
}

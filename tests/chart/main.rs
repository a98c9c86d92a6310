//! The chart as Helm sees it: lints, renders, and refuses wrong values by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;
use vlm_tests::tools::{documents, tool};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/vlm-operator");

fn render(settings: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = Command::new(tool("helm"));
    command.args(["template", "vlm-operator", CHART, "--namespace", "vlm-system"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let out = command.output().expect("helm runs");
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(documents(&String::from_utf8(out.stdout).unwrap()))
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|d| d["kind"] == kind).collect()
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
    assert_eq!(of_kind(&all, "ClusterRole").len(), 1);
    let deployment = of_kind(&all, "Deployment")[0];
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(args.contains(&Value::from("--runtime-image=localhost/vlm-runtime:0.1.0")), "{args:?}");
}

#[test]
fn a_mirror_of_the_hub_is_handed_to_the_operator() {
    let arguments = |settings: &[&str]| {
        let all = render(settings).unwrap();
        of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    assert!(!arguments(&[]).contains("--hub-endpoint"));
    assert!(arguments(&["hub.endpoint=https://mirror/hf"]).contains("--hub-endpoint=https://mirror/hf"));
}

#[test]
fn a_watched_namespace_gets_a_role_and_no_cluster_role() {
    let all = render(&["watchNamespace=team-a"]).unwrap();
    assert!(of_kind(&all, "ClusterRole").is_empty());
    assert!(of_kind(&all, "Role").iter().any(|r| r["metadata"]["namespace"] == "team-a"));
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
        ("hub.endpoint=ftp://x", "endpoint"),
        ("hub.endpoint=https://user:password@x", "endpoint"),
        ("watchNamespaces=a", "watchNamespaces"),
        ("image.prefix=UPPER", "prefix"),
    ] {
        let error = render(&[setting]).expect_err(setting);
        assert!(error.contains(name), "{setting}: {error}");
    }
}

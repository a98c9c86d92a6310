//! The operator's rights against what it asked for, by the audit log of all tests so far: no request
//! was refused, and no rule is there for nothing.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::process::Command;

use serde_json::Value;
use vlm_tests::cluster::{SYSTEM, chart, cluster, get};
use vlm_tests::idle::audit_log;
use vlm_tests::tools::{documents, run, tool};

/// API group, resource with its subresource, verb.
type Right = (String, String, String);

/// What the operator asked for.
fn requests() -> Vec<Value> {
    let name = format!("system:serviceaccount:{SYSTEM}:vlm-operator");
    let file = std::fs::File::open(audit_log()).unwrap();
    std::io::BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|entry| entry["user"]["username"] == name.as_str())
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The right that a request used.
fn used(entry: &Value) -> Vec<Right> {
    let on = &entry["objectRef"];
    let resource = match on["subresource"].as_str() {
        Some(sub) => format!("{}/{sub}", text(&on["resource"])),
        None => text(&on["resource"]),
    };
    let right = |verb: &str| (text(&on["apiGroup"]), resource.clone(), verb.to_owned());
    let mut rights = vec![right(&text(&entry["verb"]))];
    // An apply that creates needs that right too; the API server asks itself and logs no entry.
    if entry["verb"] == "patch" && entry["responseStatus"]["code"] == 201 {
        rights.push(right("create"));
        // So does a child whose owner must not go before it (OwnerReferencesPermissionEnforcement is on).
        if text(&on["resource"]) == "deployments" {
            rights.push(("vlm-operator.dev".to_owned(), "visionmodels/finalizers".to_owned(), "update".to_owned()));
        }
    }
    rights
}

/// Every right that the chart gives.
fn given() -> BTreeSet<Right> {
    let mut helm = Command::new(tool("helm"));
    helm.args(["template", "vlm-operator"]).arg(chart()).args(["--namespace", SYSTEM]);
    let mut rights = BTreeSet::new();
    for role in documents(&run(&mut helm).unwrap()) {
        if !matches!(role["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        let all = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        for rule in role["rules"].as_array().unwrap() {
            for group in all(&rule["apiGroups"]) {
                for resource in all(&rule["resources"]) {
                    rights.extend(all(&rule["verbs"]).into_iter().map(|v| (group.clone(), resource.clone(), v)));
                }
            }
        }
    }
    rights
}

#[tokio::test]
async fn every_right_is_used_and_none_is_missing() {
    cluster().await;
    let requests = requests();
    // What the tests of e2e ask of the operator uses every right; `make cluster-test` runs both.
    let of_e2e = |e: &&Value| e["objectRef"]["namespace"].as_str().is_some_and(|n| n.starts_with("t-"));
    let of_e2e = requests.iter().filter(of_e2e).count();
    assert!(of_e2e > 100, "the log has {of_e2e} requests for the tests of e2e: run them in this cluster before this");
    // An earlier installation was refused while its rights were being deleted with it.
    let account = get("serviceaccount", "vlm-operator", SYSTEM).unwrap();
    let refused: Vec<_> = requests
        .iter()
        .filter(|e| e["user"]["uid"] == account["metadata"]["uid"])
        .filter(|e| e["annotations"]["authorization.k8s.io/decision"] == "forbid")
        .map(|e| format!("{} {}", e["verb"], e["requestURI"]))
        .collect();
    assert!(refused.is_empty(), "the chart gives too few rights: {refused:#?}");
    let secrets = requests.iter().filter(|e| e["objectRef"]["resource"] == "secrets").count();
    assert_eq!(secrets, 0, "the operator asked for Secrets");
    let (given, used): (_, BTreeSet<_>) = (given(), requests.iter().flat_map(used).collect());
    let idle: Vec<_> = given.difference(&used).collect();
    assert!(idle.is_empty(), "the chart gives rights that nothing used: {idle:#?}");
    println!("{} requests used all {} rights", requests.len(), given.len());
}

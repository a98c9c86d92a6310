//! The rights of operator and gateway against what they asked for, by the audit log of all tests so far: no request
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

/// What a service account asked for.
fn requests(account: &str) -> Vec<Value> {
    let name = format!("system:serviceaccount:{SYSTEM}:{account}");
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

/// Every right that the chart gives a service account.
fn given(account: &str) -> BTreeSet<Right> {
    let mut helm = Command::new(tool("helm"));
    helm.args(["template", "vlm-operator"]).arg(chart()).args(["--namespace", SYSTEM]);
    let mut rights = BTreeSet::new();
    let all = documents(&run(&mut helm).unwrap());
    let bound = |role: &Value| {
        all.iter().any(|binding| {
            let subjects = binding["subjects"].as_array().into_iter().flatten();
            binding["roleRef"]["kind"] == role["kind"]
                && binding["roleRef"]["name"] == role["metadata"]["name"]
                && subjects.into_iter().any(|subject| subject["name"] == account)
        })
    };
    for role in &all {
        if !matches!(role["kind"].as_str(), Some("Role" | "ClusterRole")) || !bound(role) {
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

/// Holds one account's rights against its requests, of which there were at least so many.
fn check(account: &str, least: usize) {
    let requests = requests(account);
    assert!(requests.len() >= least, "{account} has asked {} times", requests.len());
    // An earlier installation was refused while its rights were being deleted with it.
    let now = get("serviceaccount", account, SYSTEM).unwrap();
    let refused: Vec<_> = requests
        .iter()
        .filter(|e| e["user"]["uid"] == now["metadata"]["uid"])
        .filter(|e| e["annotations"]["authorization.k8s.io/decision"] == "forbid")
        .map(|e| format!("{} {}", e["verb"], e["requestURI"]))
        .collect();
    assert!(refused.is_empty(), "the chart gives {account} too few rights: {refused:#?}");
    let secrets = requests.iter().filter(|e| e["objectRef"]["resource"] == "secrets").count();
    assert_eq!(secrets, 0, "{account} asked for Secrets");
    let (given, used): (_, BTreeSet<_>) = (given(account), requests.iter().flat_map(used).collect());
    let idle: Vec<_> = given.difference(&used).collect();
    assert!(!given.is_empty() && idle.is_empty(), "the chart gives {account} rights that nothing used: {idle:#?}");
    println!("{account}: {} requests used all {} rights", requests.len(), given.len());
}

#[tokio::test]
async fn every_right_is_used_and_none_is_missing() {
    cluster().await;
    // What the tests of e2e ask of the operator uses every right; `make cluster-test` runs both.
    let of_e2e = |e: &&Value| e["objectRef"]["namespace"].as_str().is_some_and(|n| n.starts_with("t-"));
    let of_e2e = requests("vlm-operator").iter().filter(of_e2e).count();
    assert!(of_e2e > 100, "the log has {of_e2e} requests for the tests of e2e: run them in this cluster before this");
    check("vlm-operator", of_e2e);
    check("vlm-operator-gateway", 4);
}

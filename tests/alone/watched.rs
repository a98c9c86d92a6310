//! An operator that looks after some namespaces only, with rights in these alone.

use serde_json::{Value, json};
use vlm_tests::cluster::{SYSTEM, get, helm_install, kubectl, service_ip};
use vlm_tests::space::Space;

#[tokio::test]
async fn models_of_the_watched_namespaces_are_served_and_of_no_other() {
    let (one, two) = (Space::with_model("a-one").await, Space::with_model("a-two").await);
    let other = Space::with_model("a-other").await;
    helm_install(&["watchNamespaces={a-one,a-two}"]);
    assert_eq!(
        kubectl(&["get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/name=vlm-operator", "-o", "name"])
            .unwrap(),
        ""
    );
    for space in [&other, &one, &two] {
        space.apply(&json!({})).unwrap();
    }
    one.await_ready().await;
    two.await_ready().await;
    // A child of one of them is put back: the watches of each namespace lead to its own controller.
    kubectl(&["delete", "service", "tiny-llava", "-n", &two.name]).unwrap();
    vlm_tests::cluster::await_that("the Service is back", 10, || async {
        get("service", "tiny-llava", &two.name).map(|_| ()).ok_or_else(|| "gone".to_owned())
    })
    .await;
    assert!(get("deployment", "tiny-llava", &other.name).is_none(), "a namespace that is not watched");
    assert_eq!(other.model()["status"]["observedGeneration"], -1);
    let url = format!("http://{}:8080/prometheus/targets", service_ip("vlm-operator", SYSTEM));
    let targets: Vec<Value> = reqwest::get(url).await.unwrap().json().await.unwrap();
    let mut namespaces: Vec<_> = targets.iter().map(|t| t["labels"]["namespace"].as_str().unwrap()).collect();
    namespaces.sort_unstable();
    namespaces.retain(|n| n.starts_with("a-") && !n.starts_with("a-image") && *n != "a-upgrade");
    assert_eq!(namespaces, ["a-one", "a-two"]);
    for space in [one, two, other] {
        space.close();
    }
    helm_install(&[]);
}

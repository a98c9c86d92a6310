//! Streams outlive the pods that compute them.

use vlm_tests::cluster::{SYSTEM, service_ip};
use vlm_tests::space::Space;
use vlm_tests::streams::disturb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_the_pods_that_compute_them() {
    let space = Space::with_model("t-streams").await;
    let base = format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM));
    let result = disturb(&space, &base, 24, 400, 2).await;
    println!("{result:#}");
    assert_eq!(result["passed"], true, "{result:#}");
    let moved: u64 =
        result["gone_on_elsewhere"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
    assert!(moved > 0, "pods went, and no stream was on one: {result:#}");
    space.close();
}

//! Without a gateway that could be asked, nobody can tell whether a new replica is reached; one that was reached before
//! stays ready.

use serde_json::json;
use vlm_tests::cluster::{SYSTEM, await_that, condition, get, kubectl};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;

fn gateways(replicas: i64) {
    let count = format!("--replicas={replicas}");
    kubectl(&["scale", "deployment/vlm-operator-gateway", "-n", SYSTEM, &count]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_a_new_replica_waits_and_one_that_was_reached_serves() {
    let (case, served) = (Provoked::with_model("a-no-gateway").await, Space::with_model("a-was-reached").await);
    served.apply(&json!({})).unwrap();
    served.await_ready().await;
    gateways(0);
    await_that("no gateway is left", 60, || async {
        let left = get("deployment", "vlm-operator-gateway", SYSTEM).unwrap()["status"]["replicas"].clone();
        if left.is_null() { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    case.fails(&json!({}), "GatewayUnreachable", false, &["no gateway takes requests", "pod tiny-llava-"]).await;
    let pod = case.space.pods().remove(0);
    assert_eq!(condition(&pod, "vlm-operator.dev/routable")["status"], "Unknown");
    assert_eq!(condition(&served.pods()[0], "Ready")["status"], "True");
    assert_eq!(condition(&served.model(), "Ready")["status"], "True");
    let from = case.watch.len();
    gateways(2);
    case.recovers(from, "GatewayUnreachable").await;
    served.close();
}

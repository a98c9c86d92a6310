//! Streams outlive the pods that compute them, and die with nothing but their own gateway.

use serde_json::json;
use vlm_tests::cluster::{SYSTEM, await_that, kubectl, service_ip};
use vlm_tests::space::Space;
use vlm_tests::streams::{Streams, disturb, gateways, kill_gateway};

/// Held by each: one of them kills a gateway, and with it whatever goes through that.
static GATEWAYS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_the_pods_that_compute_them() {
    let _undisturbed = GATEWAYS.lock().await;
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

/// Address of one gateway's API.
fn api((_, address): &(String, String)) -> String {
    format!("http://{address}:8000")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_takes_none_but_its_own_streams_and_one_that_is_asked_to_end_none() {
    let _alone = GATEWAYS.lock().await;
    let space = Space::with_model("t-streams-gateway").await;
    space.apply(&json!({"context": {"maxConcurrency": 32}})).unwrap();
    space.await_ready().await;
    let model = format!("{}/tiny-llava", space.name);
    let whole = || async {
        await_that("two gateways that answer", 60, || async {
            let all = gateways();
            for (_, address) in &all {
                let ready = reqwest::get(format!("http://{address}:8080/readyz")).await.map_err(|e| e.to_string())?;
                ready.error_for_status().map_err(|e| e.to_string())?;
            }
            if all.len() == 2 { Ok(all) } else { Err(format!("{all:?}")) }
        })
        .await
    };
    let all = whole().await;
    let (first, second) = (api(&all[0]), api(&all[1]));
    let (dies, stays) = tokio::join!(Streams::open(&first, &model, 8, 400), Streams::open(&second, &model, 8, 400));
    assert_eq!(kill_gateway(&all[0].0).as_deref(), Some(all[0].0.as_str()));
    let (dies, stays) = tokio::join!(dies.stop(), stays.stop());
    assert!(!dies.wrong.is_empty(), "streams were open there");
    assert!(stays.wrong.is_empty(), "{:?}", stays.wrong);
    let all = whole().await;
    let ends = Streams::open(&api(&all[0]), &model, 8, 400).await;
    kubectl(&["delete", "pod", &all[0].0, "-n", SYSTEM, "--wait=false"]).unwrap();
    let ends = ends.stop().await;
    assert!(ends.wrong.is_empty() && ends.streams >= 8, "{:?}", ends.wrong);
    whole().await;
    space.close();
}

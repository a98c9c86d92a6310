//! Streams die with their own gateway when it is killed, and with nothing else.

use serde_json::json;
use vlm_tests::cluster::{SYSTEM, await_that, kubectl};
use vlm_tests::space::Space;
use vlm_tests::streams::{Streams, gateways, kill_gateway};

/// Address of one gateway's API.
fn api((_, address): &(String, String)) -> String {
    format!("http://{address}:8000")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_takes_none_but_its_own_streams_and_one_that_is_asked_to_end_none() {
    let space = Space::with_model("a-gateway-killed").await;
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

//! Streams die with their own gateway when it is killed, and with nothing else; one that is asked to end loses nothing.

use serde_json::json;
use vlm_tests::cluster::{SYSTEM, await_that, kubectl, list, service_ip};
use vlm_tests::load::{Load, long_question};
use vlm_tests::space::Space;
use vlm_tests::streams::{Streams, both_gateways, signal_gateway, signal_server};

/// Address of one gateway's API.
fn api((_, address): &(String, String)) -> String {
    format!("http://{address}:8000")
}

/// One replica, in a namespace of this name, and what the model is called.
async fn served(name: &str) -> (Space, String) {
    let space = Space::with_model(name).await;
    space.apply(&json!({"replicas": 1, "context": {"maxConcurrency": 32}})).unwrap();
    space.await_ready().await;
    let model = format!("{name}/tiny-llava");
    (space, model)
}

/// Requests for the models of this namespace that a gateway has given to replicas.
async fn in_flight((_, address): &(String, String), space: &Space) -> Result<f64, String> {
    let page = reqwest::get(format!("http://{address}:8080/metrics")).await.map_err(|e| format!("{e:?}"))?;
    let page = page.text().await.map_err(|e| format!("{e:?}"))?;
    let namespace = format!("namespace=\"{}\"", space.name);
    let lines = page.lines().filter(|l| l.starts_with("vlm_gateway_requests_in_flight{") && l.contains(&namespace));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_takes_none_but_its_own_streams_and_one_that_is_asked_to_end_none() {
    let (space, model) = served("a-gateway-killed").await;
    let all = both_gateways().await;
    let (first, second) = (api(&all[0]), api(&all[1]));
    let (dies, stays) = tokio::join!(Streams::open(&first, &model, 8, 400), Streams::open(&second, &model, 8, 400));
    assert_eq!(signal_gateway(&all[0].0, "KILL").as_deref(), Some(all[0].0.as_str()));
    let (dies, stays) = tokio::join!(dies.stop(), stays.stop());
    assert!(!dies.wrong.is_empty(), "streams were open there");
    assert!(stays.wrong.is_empty(), "{:?}", stays.wrong);
    let leaves = both_gateways().await.remove(0);
    let streams = Streams::open(&api(&leaves), &model, 8, 400).await;
    await_that("its streams run", 30, || async {
        let running = in_flight(&leaves, &space).await?;
        if running >= 8.0 { Ok(()) } else { Err(format!("{running} run")) }
    })
    .await;
    // The replica stands still until the gateway takes no more requests, so every stream ends after that.
    signal_server(&space, "STOP").unwrap();
    let goes_on_after_the_close = async {
        kubectl(&["delete", "pod", &leaves.0, "-n", SYSTEM, "--wait=false"]).unwrap();
        await_that("it takes no more requests", 60, || async {
            match reqwest::get(format!("{}/v1/models", api(&leaves))).await {
                Err(error) if error.is_connect() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let running = in_flight(&leaves, &space).await;
        signal_server(&space, "CONT").unwrap();
        running
    };
    let (streams, running) = tokio::join!(streams.stop(), goes_on_after_the_close);
    assert!(running.as_ref().is_ok_and(|running| *running > 0.0), "streams were open at the close: {running:?}");
    assert!(streams.wrong.is_empty() && streams.streams >= 8, "{:?}", streams.wrong);
    both_gateways().await;
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_of_the_gateways_loses_no_request() {
    let (space, model) = served("a-gateway-rollout").await;
    let before = both_gateways().await;
    let mut body = long_question(30);
    body["model"] = json!(model);
    let load = Load::start(&format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM)), 8, &body);
    kubectl(&["rollout", "restart", "deployment/vlm-operator-gateway", "-n", SYSTEM]).unwrap();
    kubectl(&["rollout", "status", "deployment/vlm-operator-gateway", "-n", SYSTEM, "--timeout=120s"]).unwrap();
    await_that("the former gateways are gone", 60, || async {
        let pods = list("pods", SYSTEM, "app.kubernetes.io/name=vlm-gateway");
        let left = pods.iter().filter(|pod| before.iter().any(|(name, _)| pod["metadata"]["name"] == name.as_str()));
        let left = left.count();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })
    .await;
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    println!("{answered} answered while the gateways rolled");
    space.close();
}

//! One address for every model: listed, answered, asleep and woken, through the gateway of the installed chart.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, SYSTEM, await_that, cluster, condition, service_ip};
use vlm_tests::space::Space;

use crate::load::{Load, long_question, question};

fn gateway() -> String {
    format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM))
}

/// The name that no other test's model has.
fn whole_name(space: &Space) -> String {
    format!("{}/tiny-llava", space.name)
}

fn named(space: &Space, mut body: Value) -> Value {
    body["model"] = json!(whole_name(space));
    body
}

async fn ask(body: &Value) -> Result<Value, String> {
    ask_at(&reqwest::Client::new(), &gateway(), body).await
}

async fn ask_at(client: &reqwest::Client, base: &str, body: &Value) -> Result<Value, String> {
    let url = format!("{base}/v1/chat/completions");
    let response = client.post(url).json(body).send().await.map_err(|e| format!("{e:?}"))?;
    let (status, text) = (response.status().as_u16(), response.text().await.map_err(|e| format!("{e:?}"))?);
    if status == 200 {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        Err(format!("{status}: {text}"))
    }
}

/// Goes to zero some seconds after the last request.
fn sleepy() -> Value {
    json!({"scaling": {"minReplicas": 0, "maxReplicas": 2, "stableSeconds": 4, "panicSeconds": 2,
                       "downStabilizationSeconds": 0, "zero": {"idleSeconds": 4}}})
}

async fn await_asleep(space: &Space) {
    space.await_replicas("asleep", 60, |n| n == 0).await;
    space.await_condition("Ready", "True", "ScaledToZero", 30).await;
    await_that("its pods are gone", 60, || async {
        if space.pods().is_empty() { Ok(()) } else { Err(format!("{} pods", space.pods().len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_listed_and_answers_through_the_gateway() {
    let space = Space::with_model("t-gateway").await;
    space.apply(&json!({})).unwrap();
    // Not before it is listed, but before it is ready: the request waits.
    await_that("the model is listed", 10, || async {
        let list = reqwest::get(format!("{}/v1/models", gateway())).await.unwrap().text().await.unwrap();
        if list.contains("tiny-llava") { Ok(()) } else { Err(list) }
    })
    .await;
    let body = named(&space, question("demo.png", "What is drawn here?", 8));
    let through = await_that("the model is known", 10, || ask(&body)).await;
    assert_eq!(through["model"], whole_name(&space));
    let direct =
        reqwest::Client::new().post(space.address() + "/v1/chat/completions").json(&body).send().await.unwrap();
    let direct: Value = direct.json().await.unwrap();
    assert_eq!(through["choices"], direct["choices"], "greedy text is the same by either way");
    let metrics = reqwest::get(space.address() + "/metrics").await.unwrap().text().await.unwrap();
    // The picture by which the replica was found routable, and the request.
    assert!(metrics.contains("vlm_requests_arrived_total{via=\"gateway\"} 2"), "{metrics}");
    assert!(metrics.contains("vlm_requests_arrived_total{via=\"direct\"} 1"), "{metrics}");
    let mut body = body;
    body["stream"] = json!(true);
    let url = format!("{}/v1/chat/completions", gateway());
    let text = reqwest::Client::new().post(url).json(&body).send().await.unwrap().text().await.unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_goes_to_zero_and_the_first_request_wakes_it_and_is_answered() {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model("t-zero").await;
    space.apply(&sleepy()).unwrap();
    space.await_ready().await;
    let deployments: Api<Deployment> = Api::namespaced(cluster().await, &space.name);
    let body = named(&space, question("demo.png", "What is drawn here?", 8));
    let (client, base) = (reqwest::Client::new(), gateway());
    let mut written = Vec::new();
    for round in 0..4 {
        await_asleep(&space).await;
        assert_eq!(condition(&space.model(), "Available")["status"], "True", "a request would be answered");
        let begun = Instant::now();
        let asking = tokio::spawn({
            let (client, base, body) = (client.clone(), base.clone(), body.clone());
            async move { ask_at(&client, &base, &body).await }
        });
        loop {
            let deployment = deployments.get("tiny-llava").await.unwrap();
            if deployment.spec.and_then(|spec| spec.replicas).unwrap_or_default() > 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the scale-up was never written");
        }
        written.push(begun.elapsed().as_millis());
        let answer = asking.await.unwrap();
        assert!(answer.is_ok(), "round {round}: {answer:?}");
        println!("round {round}: scale-up written after {} ms, answered after {:?}", written[round], begun.elapsed());
    }
    written.sort_unstable();
    assert!(written[1] < 500, "milliseconds to the written scale-up: {written:?}");
    let model = space.model();
    let reasons: Vec<_> = model["status"]["scaling"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| decision["reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(reasons.iter().any(|r| r == "Idle") && reasons.iter().any(|r| r == "Woken"), "{reasons:?}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_at_a_sleeping_model_is_answered_or_refused_and_nothing_is_lost() {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model("t-burst").await;
    let result = vlm_tests::burst::run(&space, (60, 20, 6)).await;
    println!("{result}");
    assert_eq!(result["passed"], true, "{result:#}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_loses_no_request() {
    let space = Space::with_model("t-gateway-scale").await;
    let scaling = json!({"minReplicas": 1, "maxReplicas": 3, "stableSeconds": 12, "panicSeconds": 4,
                         "downStabilizationSeconds": 12, "target": {"queueDepth": 1, "concurrency": 2}});
    space.apply(&json!({"scaling": scaling, "context": {"maxConcurrency": 2}})).unwrap();
    space.await_ready().await;
    // Beyond what the replicas are given at a time, requests are held here: they count as load.
    let load = Load::start(&gateway(), 8, &named(&space, long_question(200)));
    space.await_replicas("up to the maximum", 60, |n| n == 3).await;
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    let light = Load::start(&gateway(), 1, &named(&space, long_question(20)));
    space.await_replicas("back to the minimum", 120, |n| n == 1).await;
    let (answered, failures) = light.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    space.close();
}

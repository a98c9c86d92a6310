//! From one replica up, down to none and back, by both ways of reading the load; and what happens meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, SYSTEM, service_ip};
use vlm_tests::space::Space;
use vlm_tests::written::Written;

use crate::load::{Load, long_question, question};

/// What Prometheus is asked for.
pub const QUERY: &str = "sum(vlm_requests_running{namespace=\"$namespace\",model=\"$name\"}) \
                         + sum(vlm_requests_waiting{namespace=\"$namespace\",model=\"$name\"})";

/// The address of every model.
pub fn gateway() -> String {
    format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM))
}

/// A body for the model of this space alone.
pub fn named(space: &Space, mut body: Value) -> Value {
    body["model"] = json!(format!("{}/tiny-llava", space.name));
    body
}

/// Short windows, and zero some seconds after the last request.
pub fn quick(more: &Value) -> Value {
    let mut scaling = json!({"minReplicas": 0, "maxReplicas": 3, "stableSeconds": 8, "panicSeconds": 4,
                             "downStabilizationSeconds": 8, "target": {"queueDepth": 1, "concurrency": 2},
                             "zero": {"idleSeconds": 8}});
    for (key, value) in more.as_object().unwrap() {
        scaling[key] = value.clone();
    }
    json!({"scaling": scaling, "context": {"maxConcurrency": 2}})
}

async fn answer(url: &str, body: &Value) -> Result<String, String> {
    let url = format!("{url}/v1/chat/completions");
    let response = reqwest::Client::new().post(url).json(body).send().await.map_err(|e| format!("{e:?}"))?;
    let (status, text) = (response.status().as_u16(), response.text().await.map_err(|e| format!("{e:?}"))?);
    if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
}

/// Within so many seconds the replicas that nobody needs go, and then the last.
async fn up_down_to_zero_and_back(name: &str, more: &Value, (fewer, none): (u64, u64)) {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model(name).await;
    space.apply(&quick(more)).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    let stepped = Instant::now();
    // 20 in flight, two computed by each replica and one waiting there: ceil(20 / 3) is more than the most allowed.
    let load = Load::start(&gateway(), 20, &named(&space, long_question(150)));
    let whole = written.until("all replicas are ordered", 60, |n| n == 3).await.duration_since(stepped);
    let metrics = space.await_condition("MetricsAvailable", "True", "", 30).await;
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    let few = Load::start(&gateway(), 1, &named(&space, long_question(10)));
    let begun = Instant::now();
    let fell = written.until("one replica for few requests", fewer, |n| n == 1).await.duration_since(begun);
    let (answered, failures) = few.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    written.until("none for no requests", none, |n| n == 0).await;
    space.await_condition("Ready", "True", "ScaledToZero", 30).await;
    space.await_condition("MetricsAvailable", "True", "", 20).await;
    let woken = Instant::now();
    answer(&gateway(), &named(&space, question("demo.png", "What is drawn here?", 4))).await.unwrap();
    println!(
        "{name}: {whole:?} from the step to the written scale; {fell:?} down to one; back from zero in {:?}; {metrics}",
        woken.elapsed()
    );
    assert!(whole < Duration::from_secs(15), "{whole:?}, {:?}", written.all());
    let history = space.model()["status"]["scaling"]["history"].clone();
    let reasons: Vec<_> = history.as_array().unwrap().iter().filter_map(|d| d["reason"].as_str()).collect();
    for reason in ["LoadFell", "Idle", "Woken"] {
        assert!(reasons.contains(&reason), "{history}");
    }
    assert!(reasons.iter().any(|r| matches!(*r, "LoadRose" | "LoadSurged" | "RequestsRefused")), "{history}");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_pods_metrics_replicas_go_up_down_to_zero_and_back() {
    // The few requests are quick: the pace that was learnt from long answers keeps no replica for them.
    up_down_to_zero_and_back("t-zero-pods", &json!({}), (90, 90)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_prometheus_replicas_go_up_down_to_zero_and_back() {
    // What Prometheus says counts for a minute at least.
    up_down_to_zero_and_back("t-zero-prometheus", &json!({"prometheus": {"query": QUERY}}), (150, 120)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_prometheus_requests_that_no_query_sees_keep_the_last_replica() {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model("t-zero-direct").await;
    // A query that always says 0 stands for requests that come and go between two looks.
    space.apply(&quick(&json!({"prometheus": {"query": "vector(0)"}}))).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    let (begun, body) = (Instant::now(), question("demo.png", "What is drawn here?", 1));
    // Straight to the pod, past the gateway.
    while begun.elapsed() < Duration::from_secs(40) {
        answer(&space.address(), &body).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let last = Instant::now();
    assert_eq!(written.last(), 1, "{:?}", written.all());
    let slept = written.until("none when nobody asks", 120, |n| n == 0).await.duration_since(last);
    println!("asleep {slept:?} after the last request");
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_changed_during_sleep_is_what_wakes() {
    let _undisturbed = OPERATOR.read().await;
    let space = Space::with_model("t-zero-edit").await;
    let mut spec = quick(&json!({"stableSeconds": 4, "panicSeconds": 2, "downStabilizationSeconds": 0,
                                 "zero": {"idleSeconds": 2}}));
    space.apply(&spec).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    written.until("asleep", 60, |n| n == 0).await;
    space.await_condition("Ready", "True", "ScaledToZero", 30).await;
    spec["pod"] = json!({"env": [{"name": "EDITED", "value": "while asleep"}],
                         "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}});
    space.apply(&spec).unwrap();
    space.await_condition("Ready", "True", "ScaledToZero", 30).await;
    assert_eq!(written.last(), 0, "an edit wakes nothing");
    answer(&gateway(), &named(&space, question("demo.png", "What is drawn here?", 4))).await.unwrap();
    let pods = space.pods();
    let staying: Vec<_> = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
    assert!(!staying.is_empty());
    for pod in staying {
        let env = pod["spec"]["containers"][0]["env"].to_string();
        assert!(env.contains("while asleep"), "{env}");
    }
    let ready = space.await_condition("Ready", "True", "", 60).await;
    println!("{ready}");
    space.close();
}

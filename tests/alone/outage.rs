//! At the peak, what tells the load falls silent or lags behind: replicas do not go meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vlm_tests::cluster::{MONITORING, SYSTEM, kubectl, list, service_ip};
use vlm_tests::idle::Window;
use vlm_tests::load::{Load, long_question};
use vlm_tests::space::Space;
use vlm_tests::written::{Written, writers};

fn query(offset: &str) -> Value {
    let of = |name: &str| format!("sum({name}{{namespace=\"$namespace\",model=\"$name\"}}{offset})");
    json!({"query": format!("{} + {}", of("vlm_requests_running"), of("vlm_requests_waiting"))})
}

/// Windows so short that replicas would go within ten seconds.
fn hasty(more: &Value) -> Value {
    let mut scaling = json!({"minReplicas": 1, "maxReplicas": 3, "stableSeconds": 6, "panicSeconds": 2,
                             "downStabilizationSeconds": 2, "target": {"queueDepth": 1, "concurrency": 2}});
    for (key, value) in more.as_object().unwrap() {
        scaling[key] = value.clone();
    }
    json!({"scaling": scaling, "context": {"maxConcurrency": 2}})
}

/// A model at its peak, under a load that goes on.
async fn at_peak(name: &str, spec: &Value) -> (Space, Written, Load) {
    let space = Space::with_model(name).await;
    space.apply(spec).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    let mut body = long_question(150);
    body["model"] = json!(format!("{name}/tiny-llava"));
    let load = Load::start(&format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM)), 20, &body);
    written.until("the peak", 60, |n| n == 3).await;
    (space, written, load)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_cut_off_at_the_peak_takes_no_replica_away_however_idle_it_gets() {
    let (space, written, load) = at_peak("a-no-prometheus", &hasty(&json!({"prometheus": query("")}))).await;
    let window = Window::now();
    kubectl(&["scale", "deployment/prometheus", "-n", MONITORING, "--replicas=0"]).unwrap();
    let cut = Instant::now();
    let stale = space.await_condition("MetricsAvailable", "False", "MetricsStale", 60).await;
    println!("told after {:?}: {}", cut.elapsed(), stale["message"]);
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    // Nobody asks any more, and nobody can know.
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert_eq!((written.last(), written.fall_after(cut)), (3, None), "{:?}", written.all());
    kubectl(&["scale", "deployment/prometheus", "-n", MONITORING, "--replicas=1"]).unwrap();
    let back = Instant::now();
    let fell = written.until("the rest goes once it is known", 240, |n| n == 1).await.duration_since(back);
    println!("back to one {fell:?} after Prometheus was");
    assert!(writers(&window, &space.name).len() <= 1);
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_lag_a_minute_behind_take_no_replica_away_at_the_peak() {
    // The least window that a model without one of its own has: what is seen late is also the quiet before the load.
    let spec = |offset| hasty(&json!({"downStabilizationSeconds": 60, "prometheus": query(offset)}));
    let (space, written, load) = at_peak("a-late-metrics", &spec("")).await;
    let window = Window::now();
    // From now on everything is seen a minute late: first the time before there was any load.
    space.apply(&spec(" offset 1m")).unwrap();
    let late = Instant::now();
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!((written.last(), written.fall_after(late)), (3, None), "{:?}", written.all());
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    written.until("it goes when the quiet is seen", 240, |n| n == 1).await;
    assert!(writers(&window, &space.name).len() <= 1);
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_at_the_peak_takes_no_replica_away() {
    let (space, written, load) = at_peak("a-one-gateway", &hasty(&json!({}))).await;
    let window = Window::now();
    let gateways = list("pods", SYSTEM, "app.kubernetes.io/name=vlm-gateway");
    let pod = gateways[0]["metadata"]["name"].as_str().unwrap();
    kubectl(&["delete", "pod", pod, "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false"]).unwrap();
    let cut = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((written.last(), written.fall_after(cut)), (3, None), "{:?}", written.all());
    // What went through the gateway that was killed broke with it; the rest was answered.
    let (answered, failures) = load.stop().await;
    assert!(answered > 0 && failures.len() <= 20, "{answered} answered, {} failed: {failures:?}", failures.len());
    println!("{answered} answered, {} broke with their gateway", failures.len());
    written.until("back to one", 120, |n| n == 1).await;
    assert!(writers(&window, &space.name).len() <= 1);
    space.close();
}

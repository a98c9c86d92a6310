//! At the peak, what tells the load falls silent or lags behind: replicas do not go meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{MONITORING, SYSTEM, cluster, kubectl, list, service_ip};
use crate::idle::Window;
use crate::load::{Load, long_question};
use crate::space::Space;
use crate::streams::{both_gateways, signal_gateway};
use crate::written::{Written, writers};

/// The Service of the gateways.
const GATEWAYS: &str = "vlm-operator-gateway";
/// How long a gateway stands still: one that is silent for a minute counts as failed, and the kubelet ends it about then.
const STILL_SECONDS: u64 = 48;

fn query(offset: &str) -> Value {
    let of = |name: &str| format!("sum({name}{{namespace=\"$namespace\",model=\"$name\"}}{offset})");
    json!({"query": format!("{} + {}", of("vlm_requests_running"), of("vlm_requests_waiting"))})
}

/// Windows so short that replicas would go within ten seconds.
fn hasty(more: &Value) -> Value {
    let mut scaling = json!({"minReplicas": 1, "maxReplicas": 3, "stableSeconds": 6, "panicSeconds": 2,
                             "downStabilizationSeconds": 2, "target": {"queueDepth": 1, "concurrency": 2}});
    for (key, value) in more.as_object().into_iter().flatten() {
        scaling[key] = value.clone();
    }
    json!({"scaling": scaling, "context": {"maxConcurrency": 2}})
}

/// A model at its peak, under a load that goes on.
struct Peak {
    space: Space,
    written: Written,
    load: Option<Load>,
    window: Window,
}

impl Peak {
    /// With requests that go to `base`.
    async fn reach(name: &str, spec: &Value, base: &str) -> Self {
        let space = Space::with_model(name).await;
        space.apply(spec).expect("applied");
        space.await_ready().await;
        let written = Written::start(&space.name, "tiny-llava").await;
        let mut body = long_question(150);
        body["model"] = json!(format!("{name}/tiny-llava"));
        let load = Load::start(base, 20, &body);
        written.until("the peak", 60, |n| n == 3).await;
        Self { space, written, load: Some(load), window: Window::now() }
    }

    /// Ends the load; how many requests were answered, and what failed.
    async fn quiet(&mut self) -> (usize, Vec<String>) {
        match self.load.take() {
            Some(load) => load.stop().await,
            None => (0, Vec::new()),
        }
    }

    /// For so long all replicas must be wanted.
    async fn stays(&self, since: Instant, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let now = (self.written.last(), self.written.fall_after(since));
        assert_eq!(now, (3, None), "{:?}", self.written.all());
    }

    /// Seconds from `since` until one replica is wanted again.
    async fn falls(&self, since: Instant) -> f64 {
        self.written.until("back to one", 240, |n| n == 1).await.duration_since(since).as_secs_f64()
    }

    fn end(self) {
        assert!(writers(&self.window, &self.space.name).len() <= 1, "two wrote");
        self.space.close();
    }
}

fn all_gateways() -> String {
    format!("http://{}", service_ip(GATEWAYS, SYSTEM))
}

/// Prometheus goes away, and the load after it: nobody can know, so for `seconds` nothing falls. With `whole` it comes
/// back, and what is not needed goes.
pub async fn prometheus_cut(name: &str, seconds: u64, whole: bool) -> Value {
    cluster().await;
    let mut peak = Peak::reach(name, &hasty(&json!({"prometheus": query("")})), &all_gateways()).await;
    kubectl(&["scale", "deployment/prometheus", "-n", MONITORING, "--replicas=0"]).expect("scaled");
    let cut = Instant::now();
    let stale = peak.space.await_condition("MetricsAvailable", "False", "MetricsStale", 60).await;
    let told = cut.elapsed().as_secs_f64();
    let (answered, failures) = peak.quiet().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    peak.stays(cut, seconds).await;
    kubectl(&["scale", "deployment/prometheus", "-n", MONITORING, "--replicas=1"]).expect("scaled");
    let fell = if whole { Some(peak.falls(Instant::now()).await) } else { None };
    peak.end();
    json!({"told_after_seconds": told, "told": stale["message"], "idle_without_a_fall_seconds": seconds,
           "fell_after_its_return_seconds": fell, "answered": answered})
}

/// All that is told of the load is a minute old: first it is seen as it was before there was any.
pub async fn late_metrics(name: &str) -> Value {
    // The least window that a model without one of its own has: what is seen late is also the quiet before the load.
    let spec = |offset| hasty(&json!({"downStabilizationSeconds": 60, "prometheus": query(offset)}));
    cluster().await;
    let mut peak = Peak::reach(name, &spec(""), &all_gateways()).await;
    peak.space.apply(&spec(" offset 1m")).expect("applied");
    peak.stays(Instant::now(), 80).await;
    let (answered, failures) = peak.quiet().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    let fell = peak.falls(Instant::now()).await;
    peak.end();
    json!({"late_by_seconds": 60, "loaded_without_a_fall_seconds": 80, "fell_after_the_load_seconds": fell,
           "answered": answered})
}

/// One of two gateways stands still, and the load, which goes through the other, ends: nobody can know what the one that
/// stands still holds, so nothing falls until it goes on.
pub async fn gateway_cut(name: &str) -> Value {
    cluster().await;
    let all = both_gateways().await;
    let ((still, _), (_, other)) = (&all[0], &all[1]);
    let mut peak = Peak::reach(name, &hasty(&json!({})), &format!("http://{other}:8000")).await;
    let (paused, since) = (Paused::start(still), Instant::now());
    let stale = peak.space.await_condition("MetricsAvailable", "False", "MetricsStale", 30).await;
    let told = since.elapsed().as_secs_f64();
    assert!(stale["message"].as_str().is_some_and(|message| message.contains(still)), "{stale}");
    let (answered, failures) = peak.quiet().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    // Where every source answers, replicas that nobody needs go within ten seconds.
    let idle = STILL_SECONDS.saturating_sub(since.elapsed().as_secs());
    assert!(idle >= 15, "the load took too long to end: {:?}", since.elapsed());
    peak.stays(since, idle).await;
    assert!(takes_requests(still), "it was to be silent, not gone");
    drop(paused);
    let fell = peak.falls(Instant::now()).await;
    peak.end();
    json!({"told_after_seconds": told, "told": stale["message"], "idle_without_a_fall_seconds": idle,
           "fell_after_it_went_on_seconds": fell, "answered": answered})
}

/// A gateway whose process stands still until this is dropped. Whoever reads the slices goes on taking it for ready: the
/// Service is told to publish addresses that are not ready as well.
struct Paused(String);

impl Paused {
    fn start(pod: &str) -> Self {
        let paused = Self(pod.to_owned());
        publish_unready(true).expect("patched");
        assert_eq!(signal_gateway(pod, "STOP").as_deref(), Some(pod));
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal_gateway(&self.0, "CONT");
        let _ = publish_unready(false);
    }
}

fn publish_unready(whether: bool) -> Result<String, String> {
    let patch = json!({"spec": {"publishNotReadyAddresses": whether}}).to_string();
    kubectl(&["patch", "service", GATEWAYS, "-n", SYSTEM, "--type=merge", "-p", &patch])
}

/// Whether the slices say that this gateway takes requests.
fn takes_requests(pod: &str) -> bool {
    let slices = list("endpointslices", SYSTEM, &format!("kubernetes.io/service-name={GATEWAYS}"));
    let mut endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints.any(|endpoint| endpoint["targetRef"]["name"] == pod && endpoint["conditions"]["ready"] == true)
}

//! How long a model without replicas takes to wake: from the first request at the gateway to the written scale-up, part
//! by part, and to the first token. Real pods; nothing polls while it is measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::cluster::{SYSTEM, apply, await_that, cluster, service_ip};
use crate::idle::{Window, entries};
use crate::load::question;
use crate::space::Space;
use crate::watch::models;

/// Parts of the way, in milliseconds, by name.
pub type Parts = BTreeMap<&'static str, f64>;

/// The spec of a model that goes to zero seconds after its last request.
pub fn sleepy() -> Value {
    json!({"scaling": {"minReplicas": 0, "maxReplicas": 2, "stableSeconds": 4, "panicSeconds": 2,
                       "downStabilizationSeconds": 0, "zero": {"idleSeconds": 2}}})
}

/// Wakes so many models in turn until there are so many samples; `told` sees each.
pub async fn measure(space: &Space, count: usize, samples: usize, told: impl Fn(usize, &Parts)) -> Vec<Parts> {
    let names: Vec<_> = (0..count).map(|i| format!("wake-{i}")).collect();
    for name in &names {
        let mut manifest = space.manifest(&sleepy());
        manifest["metadata"]["name"] = json!(name);
        apply(&manifest.to_string()).expect("apply");
    }
    for name in &names {
        await_asleep(space, name).await;
    }
    println!("{count} models sleep");
    let mut all = Vec::new();
    for i in 0..samples {
        let parts = one(space, &names[i % count]).await;
        told(i + 1, &parts);
        all.push(parts);
    }
    all
}

/// Waits until a model has been asleep, pods and all, then asks it one thing.
async fn one(space: &Space, name: &str) -> Parts {
    await_asleep(space, name).await;
    let api: Api<Deployment> = Api::namespaced(cluster().await, &space.name);
    let version = api.get(name).await.expect("Deployment").resource_version().expect("version");
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = api.watch(&params, &version).await.expect("watch").boxed();
    let mut body = question("demo.png", "What is drawn here?", 4);
    body["model"] = json!(format!("{}/{name}", space.name));
    body["stream"] = json!(true);
    let url = format!("http://{}/v1/chat/completions", service_ip("vlm-operator-gateway", SYSTEM));
    let client = reqwest::Client::new();
    let (window, clock, begun) = (Window::now(), SystemTime::now(), Instant::now());
    let asking = tokio::spawn(async move { first_token(&client, &url, &body, begun).await });
    let written = loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("a scale-up");
        if let WatchEvent::Modified(deployment) = event.expect("the watch goes on").expect("an event")
            && deployment.spec.is_some_and(|spec| spec.replicas > Some(0))
        {
            break begun.elapsed();
        }
    };
    let token = asking.await.expect("task").expect("an answer");
    let clock = clock.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut parts = of_audit(&window, space, name, clock);
    parts.insert("written, as a watch sees it", millis(written));
    parts.insert("first token", millis(token));
    parts
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Waits until a model has no replicas, nor pods.
pub async fn await_asleep(space: &Space, name: &str) {
    let deployments: Api<Deployment> = Api::namespaced(cluster().await, &space.name);
    let visions = models(&space.name).await;
    await_that("the model sleeps", 120, || async {
        let model = visions.get(name).await.map_err(|e| e.to_string())?;
        let deployment = deployments.get(name).await.map_err(|e| e.to_string())?;
        let left = deployment.status.and_then(|status| status.replicas).unwrap_or_default();
        let desired = &model.data["status"]["replicas"];
        let sleeps = desired["desired"] == 0 && desired["current"] == 0 && left == 0;
        if sleeps { Ok(()) } else { Err(model.data["status"].to_string()) }
    })
    .await;
}

/// Time from `begun` to the first event with text of the answer; reads the rest.
async fn first_token(client: &reqwest::Client, url: &str, body: &Value, begun: Instant) -> Result<Duration, String> {
    let response = client.post(url).json(body).send().await.map_err(|e| format!("{e:?}"))?;
    let (mut chunks, mut text, mut first) = (response.bytes_stream(), String::new(), None);
    while let Some(chunk) = chunks.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.map_err(|e| format!("{e:?}"))?));
        if text.contains("\"content\":\"") || text.contains("\"content\": \"") {
            first.get_or_insert_with(|| begun.elapsed());
        }
    }
    if text.trim_end().ends_with("data: [DONE]") { first.ok_or(text) } else { Err(text) }
}

/// What the API server says of the two writes: when they came, and when they were answered.
fn of_audit(window: &Window, space: &Space, name: &str, begun: f64) -> Parts {
    let seconds = |value: &Value| {
        let time: MicroTime = serde_json::from_value(value.clone()).expect("a time");
        time.0.as_microsecond() as f64 / 1e6
    };
    let all = entries(window);
    let find = |resource: &str, account: &str| {
        let user = format!("system:serviceaccount:{SYSTEM}:{account}");
        let entry = all.iter().find(|e| {
            let on = &e["objectRef"];
            let is = |field: &str, value: &str| on[field] == value;
            e["user"]["username"] == user.as_str()
                && e["verb"] == "patch"
                && is("resource", resource)
                && is("namespace", &space.name)
                && is("name", name)
        });
        let entry = entry.unwrap_or_else(|| panic!("{user} has not written {resource} {name}"));
        (seconds(&entry["requestReceivedTimestamp"]), seconds(&entry["stageTimestamp"]))
    };
    let (asked, taken) = find("visionmodels", "vlm-operator-gateway");
    let (applied, written) = find("deployments", "vlm-operator");
    Parts::from([
        ("1 request to gateway's write", (asked - begun) * 1000.0),
        ("2 gateway's write", (taken - asked) * 1000.0),
        ("3 watch, queue, reconcile", (applied - taken) * 1000.0),
        ("4 operator's write", (written - applied) * 1000.0),
        ("written", (written - begun) * 1000.0),
    ])
}

/// Median, 99th percentile and maximum of each part, in milliseconds.
pub fn summary(samples: &[Parts]) -> Value {
    let of = |part: &str| {
        let mut times: Vec<_> = samples.iter().map(|parts| parts[part]).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1];
        let round = |ms: f64| (ms * 10.0).round() / 10.0;
        json!({"p50_ms": round(at(0.5)), "p99_ms": round(at(0.99)), "max_ms": round(at(1.0))})
    };
    let parts = samples.first().into_iter().flat_map(BTreeMap::keys);
    parts.map(|part| ((*part).to_owned(), of(part))).collect()
}

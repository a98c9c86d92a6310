//! Streams that are kept open through the gateway while pods go, each held against an undisturbed one; whole answers
//! beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::{SYSTEM, await_that, get, kubectl, list};
use crate::load::{Load, long_question};
use crate::space::Space;
use crate::streamed::Asked;
use crate::tools::run;

/// Whole answers that are under way at the same time, beside the streams.
const WHOLE: usize = 4;
/// Tokens of each: few enough that one ends within a drain.
const WHOLE_TOKENS: u32 = 40;

/// What became of all streams.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many there were.
    pub streams: usize,
    /// Of them, what is wrong with those that are not as the undisturbed one.
    pub wrong: Vec<String>,
}

/// Streams kept open until stopped: for each that ends a new one is opened.
pub struct Streams {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Outcome>>,
}

impl Streams {
    /// Opens `count` at `base` of `tokens` tokens an answer, after an undisturbed one of each kind.
    pub async fn open(base: &str, model: &str, count: usize, tokens: u32) -> Self {
        let (base, client) = (base.to_owned(), reqwest::Client::new());
        let mut undisturbed = Vec::new();
        for kind in 0..Asked::KINDS {
            let asked = Asked::kind(kind, tokens);
            undisturbed.push(await_that("an undisturbed stream", 60, || ask(&client, &base, model, asked)).await);
        }
        let (stop, undisturbed) = (Arc::new(AtomicBool::new(false)), Arc::new(undisturbed));
        let keep = |number: usize| {
            let (stop, undisturbed, client) = (Arc::clone(&stop), Arc::clone(&undisturbed), client.clone());
            let (base, model, asked) = (base.clone(), model.to_owned(), Asked::kind(number, tokens));
            async move {
                let mut outcome = Outcome::default();
                while !stop.load(Ordering::Relaxed) {
                    outcome.streams += 1;
                    match ask(&client, &base, &model, asked).await {
                        Ok(text) if text == undisturbed[number % Asked::KINDS] => {}
                        Ok(text) => outcome.wrong.push(format!("{asked:?}: another text: {text}")),
                        Err(error) => outcome.wrong.push(format!("{asked:?}: {error}")),
                    }
                }
                outcome
            }
        };
        Self { tasks: (0..count).map(|number| tokio::spawn(keep(number))).collect(), stop }
    }

    /// Lets the open ones end.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for task in self.tasks {
            let one = task.await.expect("task");
            all.streams += one.streams;
            all.wrong.extend(one.wrong);
        }
        all
    }
}

/// The texts of one stream, if it is whole.
async fn ask(client: &reqwest::Client, base: &str, model: &str, asked: Asked) -> Result<String, String> {
    let request = client.post(format!("{base}{}", asked.path())).json(&asked.body(model));
    let response = request.send().await.map_err(|e| format!("{e:?}"))?;
    let status = response.status().as_u16();
    let raw = response.text().await.map_err(|e| format!("{e:?}"))?;
    if status != 200 {
        return Err(format!("{status}: {raw}"));
    }
    asked.whole(&raw).ok_or_else(|| format!("not whole: …{}", tail(&raw)))
}

fn tail(raw: &str) -> String {
    let from = raw.len().saturating_sub(900);
    raw.char_indices().filter(|(at, _)| *at >= from).map(|(_, character)| character).collect()
}

/// Sends a signal, such as `KILL`, to a process of the server of this model, and says in which pod.
pub fn signal_server(space: &Space, signal: &str) -> Option<String> {
    let whole_name = format!("{}/tiny-llava", space.name);
    let is_it = |command: &str, _: &str| {
        command.contains("vlm-runtime") && command.contains("serve") && command.contains(&whole_name)
    };
    send(signal, is_it)
}

/// Sends a signal to the gateway of this pod.
pub fn signal_gateway(pod: &str, signal: &str) -> Option<String> {
    let host = format!("HOSTNAME={pod}");
    let is_it = |command: &str, environment: &str| {
        command.contains("vlm-gateway") && environment.split('\0').any(|line| line == host)
    };
    send(signal, is_it)
}

/// Sends a signal to the first process of which this holds, by its command line and environment; gives its host's name.
fn send(signal: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<String> {
    for entry in std::fs::read_dir("/proc").expect("/proc").map_while(Result::ok) {
        let folder: PathBuf = entry.path();
        let read = |name: &str| std::fs::read(folder.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned());
        let (Ok(command), Ok(environment)) = (read("cmdline"), read("environ")) else { continue };
        if is_it(&command, &environment) {
            let signal = format!("-{signal}");
            run(Command::new("kill").args([signal.as_str(), entry.file_name().to_str()?])).expect("sent");
            let host = environment.split('\0').find_map(|line| line.strip_prefix("HOSTNAME="));
            return Some(host.unwrap_or_default().to_owned());
        }
    }
    None
}

/// Waits until as many replicas are ready, of the newest template, and no others are left.
pub async fn await_settled(space: &Space, replicas: i64) {
    await_that(&format!("{replicas} replicas and no other"), 180, || async {
        let status = get("deployment", "tiny-llava", &space.name).unwrap_or_default()["status"].clone();
        let is = |field: &str| status[field].as_i64().unwrap_or(0) == replicas;
        let settled = is("readyReplicas") && is("updatedReplicas") && is("replicas");
        let pods = space.pods().len();
        if settled && pods == usize::try_from(replicas).unwrap_or(0) {
            Ok(())
        } else {
            Err(format!("{pods} pods, {status}"))
        }
    })
    .await;
}

/// The gateway's pods that are not on their way out: name and address.
pub fn gateways() -> Vec<(String, String)> {
    let all = list("pods", SYSTEM, "app.kubernetes.io/name=vlm-gateway");
    let staying = all.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    staying.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]))).collect()
}

/// Both gateways, once each takes requests.
pub async fn both_gateways() -> Vec<(String, String)> {
    await_that("two gateways that take requests", 60, || async {
        let all = gateways();
        for (_, address) in &all {
            let ready = reqwest::get(format!("http://{address}:8080/readyz")).await.map_err(|e| e.to_string())?;
            ready.error_for_status().map_err(|e| e.to_string())?;
        }
        if all.len() == 2 { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await
}

/// Streams that went on elsewhere, by reason and result, at all gateways.
pub async fn migrations() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (_, address) in gateways() {
        let page = reqwest::get(format!("http://{address}:8080/metrics")).await;
        let Ok(page) = page else { continue };
        let page = page.text().await.unwrap_or_default();
        for line in page.lines().filter_map(|line| line.strip_prefix("vlm_gateway_migrations_total")) {
            let (labels, count) = line.rsplit_once(' ').expect("a sample");
            let count = count.parse::<f64>().expect("a number") as u64;
            if count > 0 {
                *all.entry(labels.to_owned()).or_default() += count;
            }
        }
    }
    all
}

/// The model whose pods go: each gives its answers little time to end.
fn spec(replicas: i64, annotation: &str) -> Value {
    json!({"replicas": replicas, "drain": {"timeoutSeconds": 6}, "context": {"maxConcurrency": 64},
           "scaling": {"target": {"queueDepth": 64}, "zero": {"maxHeld": 1000}},
           "pod": {"annotations": {"example.com/round": annotation},
                   "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}}})
}

/// Every way in which pods go, one after another, below `count` open streams on `replicas` replicas and whole answers
/// beside them; gives what became of all and how many streams went on elsewhere.
pub async fn disturb(space: &Space, base: &str, count: usize, tokens: u32, replicas: i64) -> Value {
    space.apply(&spec(replicas, "a")).expect("applied");
    space.await_ready().await;
    await_settled(space, replicas).await;
    let model = format!("{}/tiny-llava", space.name);
    let before = migrations().await;
    let streams = Streams::open(base, &model, count, tokens).await;
    let mut question = long_question(WHOLE_TOKENS);
    question["model"] = json!(model);
    let answers = Load::start(base, WHOLE, &question);
    space.apply(&spec(1, "a")).expect("applied");
    await_settled(space, 1).await;
    space.apply(&spec(replicas, "a")).expect("applied");
    await_settled(space, replicas).await;
    space.apply(&spec(replicas, "b")).expect("applied");
    space.await_ready().await;
    await_settled(space, replicas).await;
    end_each(space, replicas).await;
    let (outcome, (answered, lost)) = tokio::join!(streams.stop(), answers.stop());
    let moved: BTreeMap<_, _> = migrations()
        .await
        .into_iter()
        .map(|(labels, n)| {
            let less = before.get(&labels).copied().unwrap_or(0);
            (labels, n.saturating_sub(less))
        })
        .collect();
    let streamed = outcome.wrong.is_empty() && outcome.streams >= count;
    json!({"open": count, "tokens_each": tokens, "replicas": replicas, "streams": outcome.streams,
           "not_as_undisturbed": outcome.wrong.len(), "which": outcome.wrong.iter().take(5).collect::<Vec<_>>(),
           "gone_on_elsewhere": moved, "whole_answers_under_way": WHOLE, "whole_answers": answered,
           "whole_answers_lost": lost.len(), "which_lost": lost.iter().take(5).collect::<Vec<_>>(),
           "passed": streamed && lost.is_empty() && answered >= WHOLE})
}

/// Ends one pod after another by TERM, and then as many servers by KILL.
async fn end_each(space: &Space, replicas: i64) {
    for pod in space.pods() {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        kubectl(&["delete", "pod", name, "-n", &space.name, "--wait=false"]).expect("deleted");
        await_settled(space, replicas).await;
    }
    for _ in 0..replicas {
        let pod = signal_server(space, "KILL").expect("a server runs");
        println!("killed the server of {pod}");
        await_that("it is known", 30, || async {
            let pods = space.pods();
            let dead = pods.iter().any(|pod| pod["status"]["containerStatuses"][0]["ready"] == false);
            if dead { Ok(()) } else { Err("every container is ready".to_owned()) }
        })
        .await;
        await_settled(space, replicas).await;
    }
}

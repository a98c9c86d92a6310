//! Many requests at once for a model that sleeps: each is answered, or refused with the time to come again; some clients
//! leave while they wait.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{SYSTEM, service_ip};
use crate::load::question;
use crate::space::Space;
use crate::streams::gateways;
use crate::wake::{await_asleep, sleepy};

/// A client that leaves does so after this time: before any replica can have started.
const PATIENCE: Duration = Duration::from_millis(700);

/// What became of one request.
enum End {
    Answered,
    /// 429, with the time to come again.
    Refused,
    /// The client left.
    Left,
    Lost(String),
}

/// Sends `count` requests at once to a model that sleeps and may have `max_held` of them held; `leaving` clients go away.
pub async fn run(space: &Space, (count, max_held, leaving): (usize, usize, usize)) -> Value {
    let mut spec = sleepy();
    spec["scaling"]["zero"]["maxHeld"] = json!(max_held);
    space.apply(&spec).expect("applied");
    space.await_ready().await;
    await_asleep(space, "tiny-llava").await;
    let mut body = question("demo.png", "What is drawn here?", 4);
    body["model"] = json!(format!("{}/tiny-llava", space.name));
    let (client, body) = (reqwest::Client::new(), body.to_string());
    let url = format!("http://{}/v1/chat/completions", service_ip("vlm-operator-gateway", SYSTEM));
    let (stop, stopped) = watch::channel(());
    let watching = tokio::spawn(most_held(space.name.clone(), stopped));
    let ask = |number: usize| tokio::spawn(one(client.clone(), url.clone(), body.clone(), number < leaving));
    let asked: Vec<_> = (0..count).map(ask).collect();
    let (mut answered, mut refused, mut left, mut lost) = (0, 0, 0, Vec::new());
    for end in asked {
        match end.await.expect("task") {
            End::Answered => answered += 1,
            End::Refused => refused += 1,
            End::Left => left += 1,
            End::Lost(why) => lost.push(why),
        }
    }
    drop(stop);
    let (most, at_the_end) = watching.await.expect("task");
    let by_replicas = refused_by_replicas(space).await;
    // At least half of what may be held was: which gateway a connection comes to is chance.
    let passed = lost.is_empty()
        && most <= max_held as f64
        && at_the_end == 0.0
        && by_replicas == Some(0.0)
        && answered >= max_held.min(count - leaving) / 2
        && left + refused + answered == count;
    json!({"requests": count, "max_held": max_held, "answered": answered, "refused_with_retry_after": refused,
           "clients_that_left": left, "lost": lost.len(), "which": lost.iter().take(5).collect::<Vec<_>>(),
           "most_held_as_seen": most, "held_at_the_end": at_the_end, "refused_by_replicas": by_replicas, "passed": passed})
}

async fn one(client: reqwest::Client, url: String, body: String, leaves: bool) -> End {
    let asked = async {
        let response = client.post(url).header("content-type", "application/json").body(body).send().await?;
        let status = response.status().as_u16();
        let again = response.headers().contains_key("retry-after");
        Ok::<_, reqwest::Error>((status, again, response.text().await?))
    };
    let limit = if leaves { PATIENCE } else { Duration::from_secs(300) };
    match timeout(limit, asked).await {
        Err(_) if leaves => End::Left,
        Err(_) => End::Lost("no answer".to_owned()),
        Ok(Ok((200, ..))) => End::Answered,
        Ok(Ok((429, true, _))) => End::Refused,
        Ok(Ok((status, _, text))) => End::Lost(format!("{status}: {text}")),
        Ok(Err(error)) => End::Lost(format!("{error:?}")),
    }
}

/// The most that all gateways together held of the model at any look, and what they hold at the end.
async fn most_held(namespace: String, mut stopped: watch::Receiver<()>) -> (f64, f64) {
    let series = format!("vlm_gateway_requests_held{{model=\"tiny-llava\",namespace=\"{namespace}\"}} ");
    let (all, mut most) = (gateways(), 0.0);
    loop {
        let ended = timeout(Duration::from_millis(20), stopped.changed()).await.is_ok();
        let mut held = 0.0;
        for (_, address) in &all {
            held += sum(&format!("http://{address}:8080/metrics"), &series).await.unwrap_or(0.0);
        }
        most = f64::max(most, held);
        if ended {
            return (most, held);
        }
    }
}

/// Requests that a replica had no room for: what is released is what it takes. A replica that is not ready, one that the
/// autoscaler has just ordered, was given none. Nothing when one that is ready cannot be asked.
async fn refused_by_replicas(space: &Space) -> Option<f64> {
    let mut all = None;
    for pod in space.pods().iter().filter(|pod| is_ready(pod)) {
        let address = pod["status"]["podIP"].as_str()?;
        let one = sum(&format!("http://{address}:8000/metrics"), "vlm_requests_refused_total{").await?;
        all = Some(all.unwrap_or(0.0) + one);
    }
    all
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// The sum of the series that begin so on a page of metrics.
async fn sum(url: &str, series: &str) -> Option<f64> {
    let page = reqwest::get(url).await.ok()?.text().await.ok()?;
    let values =
        page.lines().filter(|line| line.starts_with(series)).map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<Option<f64>>()
}

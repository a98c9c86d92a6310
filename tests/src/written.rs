//! Every number of replicas that is written to a Deployment, as a watch tells it; and who wrote it, by the audit log.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;

use crate::cluster::{SYSTEM, await_that, cluster};
use crate::idle::{Window, entries};

/// The numbers since [`Written::start`], with the time of arrival; one that is repeated stands once.
pub struct Written {
    seen: Arc<Mutex<Vec<(Instant, i32)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Written {
    /// Watches the Deployment of this name, which exists, from now on.
    pub async fn start(namespace: &str, name: &str) -> Self {
        let api: Api<Deployment> = Api::namespaced(cluster().await, namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut states = watcher::watcher(api, config).default_backoff().applied_objects().boxed();
            while let Some(state) = states.next().await {
                let Some(replicas) = state.ok().and_then(|d| d.spec?.replicas) else { continue };
                let mut list = list.lock().expect("lock");
                if list.last().is_none_or(|(_, last)| *last != replicas) {
                    list.push((Instant::now(), replicas));
                }
            }
        });
        let written = Self { seen, task };
        written.until("the first state", 10, |_| true).await;
        written
    }

    /// All numbers, oldest first.
    pub fn all(&self) -> Vec<(Instant, i32)> {
        self.seen.lock().expect("lock").clone()
    }

    /// The number now.
    pub fn last(&self) -> i32 {
        self.all().last().map_or(0, |(_, replicas)| *replicas)
    }

    /// Waits until the newest number passes, and says since when it stands.
    pub async fn until(&self, what: &str, limit_seconds: u64, test: impl Fn(i32) -> bool) -> Instant {
        await_that(what, limit_seconds, || async {
            let all = self.all();
            match all.last() {
                Some((at, replicas)) if test(*replicas) => Ok(*at),
                _ => Err(format!("{all:?}")),
            }
        })
        .await
    }

    /// The first number after `since` that is less than the one before it, and how long after.
    pub fn fall_after(&self, since: Instant) -> Option<(i32, Duration)> {
        let all = self.all();
        let mut pairs = all.windows(2).map(|pair| (pair[0].1, pair[1]));
        pairs.find(|(before, (at, now))| at > &since && now < before).map(|(_, (at, now))| (now, at - since))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The operator pods that wrote a namespace's Deployments within a window, in turn. Each stands once unless one wrote
/// again after another had: then there were two writers.
pub fn writers(window: &Window, namespace: &str) -> Vec<String> {
    let user = format!("system:serviceaccount:{SYSTEM}:vlm-operator");
    let mut pods: Vec<String> = Vec::new();
    for entry in entries(window) {
        let on = &entry["objectRef"];
        let wrote = matches!(entry["verb"].as_str(), Some("patch" | "update" | "create" | "delete"))
            && on["resource"] == "deployments"
            && on["namespace"] == namespace;
        if !wrote {
            continue;
        }
        let by = &entry["user"];
        let own = by["username"] == user.as_str();
        // The Deployment controller and whoever deletes the namespace write status and metadata, not replicas.
        if !own && (on["subresource"] == "status" || entry["verb"] == "delete") {
            continue;
        }
        let pod =
            if own { text(&by["extra"]["authentication.kubernetes.io/pod-name"][0]) } else { text(&by["username"]) };
        if pods.last() != Some(&pod) {
            pods.push(pod);
        }
    }
    pods
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

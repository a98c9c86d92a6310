//! Every state of one `VisionModel`, as a watch tells it, with the time of arrival.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::sync::Notify;

use crate::cluster::{cluster, condition};

/// One state.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived here.
    pub at: Instant,
    /// The object was deleted; this is its last state.
    pub deleted: bool,
    /// The object.
    pub object: Value,
}

/// The states since [`Watch::start`].
pub struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    more: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// The API of `VisionModels` in a namespace, without types of our own.
pub async fn models(namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<vlm_crds::VisionModel>(&());
    Api::namespaced_with(cluster().await, namespace, &resource)
}

impl Watch {
    /// Watches the object of this name, which need not exist yet, from now on.
    pub async fn start(namespace: &str, name: &str) -> Self {
        let api = models(namespace).await;
        let field = format!("metadata.name={name}");
        let from = api.list(&ListParams::default().fields(&field)).await.expect("list").metadata.resource_version;
        let (seen, more) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (list, notify) = (Arc::clone(&seen), Arc::clone(&more));
        let task = tokio::spawn(async move {
            let params = WatchParams::default().fields(&field).timeout(290);
            let mut from = from.unwrap_or_default();
            // A watch ends by itself after a while; the next begins where it ended, so no state is missed.
            loop {
                let mut events = api.watch(&params, &from).await.expect("watch").boxed();
                while let Some(Ok(event)) = events.next().await {
                    let (object, deleted) = match event {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                        WatchEvent::Deleted(object) => (object, true),
                        WatchEvent::Bookmark(_) => continue,
                        WatchEvent::Error(error) => panic!("watch of {field}: {error:?}"),
                    };
                    from = object.metadata.resource_version.clone().unwrap_or_default();
                    let object = serde_json::to_value(object).expect("JSON");
                    list.lock().expect("lock").push(Seen { at: Instant::now(), deleted, object });
                    notify.notify_waiters();
                }
            }
        });
        Self { seen, more, task }
    }

    /// How many states have arrived.
    pub fn len(&self) -> usize {
        self.seen.lock().expect("lock").len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All states, oldest first.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().expect("lock").clone()
    }

    /// Waits for the first state from index `from` on that passes.
    pub async fn until(&self, what: &str, from: usize, limit_seconds: u64, test: impl Fn(&Seen) -> bool) -> Seen {
        let end = tokio::time::Instant::now() + Duration::from_secs(limit_seconds);
        loop {
            let notified = self.more.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            let states = self.all();
            if let Some(found) = states.iter().skip(from).find(|seen| test(seen)) {
                return found.clone();
            }
            assert!(!self.task.is_finished(), "{what}: the watch broke");
            if tokio::time::timeout_at(end, notified).await.is_err() {
                let last = states.last().map(|seen| seen.object["status"]["conditions"].to_string());
                panic!("{what}: not within {limit_seconds} s; last seen: {last:?}");
            }
        }
    }

    /// Waits for `Ready` of the current generation with this status and reason (empty: any).
    pub async fn until_ready_is(&self, status: &str, reason: &str, from: usize, limit_seconds: u64) -> Seen {
        let what = format!("Ready={status} {reason}");
        self.until(&what, from, limit_seconds, |seen| {
            let ready = condition(&seen.object, "Ready");
            ready["observedGeneration"] == seen.object["metadata"]["generation"]
                && ready["status"] == status
                && (reason.is_empty() || ready["reason"] == reason)
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

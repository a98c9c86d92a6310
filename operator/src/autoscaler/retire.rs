//! Before replicas go: tells Kubernetes which pods to remove first. Best effort: a wrong choice
//! costs time, never a request, as every pod drains.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::table::Key;
use crate::{build::labels, context::Context, observe};

/// Less than the 0 of every other pod.
const FIRST_TO_GO: &str = "-1000";
/// How long to wait until the own cache shows the marks.
const WAIT: Duration = Duration::from_secs(2);

/// Marks the `count` pods with the fewest requests in flight, unmarks the others, and waits a while
/// until that is visible.
pub(super) async fn mark(context: &Context, key: &Key, count: usize) {
    let pods = context.stores.pods_of(&key.0, &key.1);
    let in_flight = |pod: &Pod| context.table.in_flight(key, &pod.name_any()).unwrap_or(0.0);
    let changes = changes(&pods, count, in_flight);
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.0);
    let writes = changes.iter().map(|(pod, cost)| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {labels::DELETION_COST: cost}}}));
        let api = &api;
        async move {
            if let Err(error) = api.patch_metadata(pod, &PatchParams::default(), &patch).await {
                debug!(%error, pod, "not marked");
            }
            context.metrics.wrote("Pod");
        }
    });
    let marked = async {
        join_all(writes).await;
        while !changes.iter().all(|(pod, cost)| shows(context, key, pod, *cost)) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(WAIT, marked).await.is_err() {
        debug!(namespace = key.0, name = key.1, "marks not seen in time");
    }
}

fn shows(context: &Context, key: &Key, pod: &str, cost: Option<&str>) -> bool {
    let pods = context.stores.pods_of(&key.0, &key.1);
    pods.iter().find(|p| p.name_any() == pod).is_none_or(|p| cost_of(p) == cost)
}

fn cost_of(pod: &Pod) -> Option<&str> {
    pod.annotations().get(labels::DELETION_COST).map(String::as_str)
}

/// Which pods get which mark: unready ones go first anyway, then those with the fewest requests.
fn changes(pods: &[Arc<Pod>], count: usize, in_flight: impl Fn(&Pod) -> f64) -> Vec<(String, Option<&'static str>)> {
    let mut staying: Vec<_> = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
    staying.sort_by(|a, b| {
        let rank = |pod: &Pod| (observe::is_ready(pod), in_flight(pod));
        let ((a_ready, a_load), (b_ready, b_load)) = (rank(a), rank(b));
        a_ready.cmp(&b_ready).then(a_load.total_cmp(&b_load)).then_with(|| a.name_any().cmp(&b.name_any()))
    });
    let marks = staying.iter().enumerate().map(|(i, pod)| (pod, (i < count).then_some(FIRST_TO_GO)));
    marks.filter(|(pod, cost)| cost_of(pod) != *cost).map(|(pod, cost)| (pod.name_any(), cost)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, cost: Option<&str>) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap();
        if let Some(cost) = cost {
            pod.annotations_mut().insert(labels::DELETION_COST.to_owned(), cost.to_owned());
        }
        Arc::new(pod)
    }

    #[test]
    fn the_idlest_pods_are_marked_and_old_marks_taken_back() {
        let pods =
            [pod("a", true, Some(FIRST_TO_GO)), pod("b", true, None), pod("c", true, None), pod("d", false, None)];
        let load = |pod: &Pod| if pod.name_any() == "b" { 1.0 } else { 5.0 };
        let mut marks = changes(&pods, 2, load);
        marks.sort();
        assert_eq!(
            marks,
            [("a".to_owned(), None), ("b".to_owned(), Some(FIRST_TO_GO)), ("d".to_owned(), Some(FIRST_TO_GO))]
        );
    }

    #[test]
    fn marks_that_are_right_are_not_written_again() {
        assert!(changes(&[pod("a", true, Some(FIRST_TO_GO)), pod("b", true, None)], 1, |_| 0.0).is_empty());
    }
}

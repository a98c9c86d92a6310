//! The operator's own HTTP endpoints: health, metrics, and where Prometheus finds the models' pods.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{FutureExt, future::try_join_all};
use kube::ResourceExt;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vlm_contract::ports;

use crate::{build::labels, metrics::Metrics, observe, observe::Stores};

/// What the endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// The caches, of each watched namespace or of all.
    pub stores: Vec<Stores>,
    /// The operator's own metrics.
    pub metrics: Metrics,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the listener breaks.
pub async fn run(listener: TcpListener, admin: Admin, shutdown: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/prometheus/targets", get(targets))
        .with_state(Arc::new(admin));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Ready once the caches are filled, whether this process leads or not.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match try_join_all(admin.stores.iter().map(Stores::wait_until_ready)).now_or_never() {
        Some(Ok(_)) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet\n").into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics.page() {
        Ok(page) => ([("content-type", "text/plain; version=0.0.4")], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// One group of targets, as Prometheus' `http_sd_configs` reads them.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Target {
    targets: [String; 1],
    labels: TargetLabels,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct TargetLabels {
    namespace: String,
    model: String,
    pod: String,
}

async fn targets(State(admin): State<Arc<Admin>>) -> Json<Vec<Target>> {
    let pods = admin.stores.iter().flat_map(|stores| stores.pods.state());
    let mut targets: Vec<_> = pods.filter_map(|pod| target(&pod)).collect();
    targets.sort_by(|a, b| a.labels.cmp(&b.labels));
    Json(targets)
}

fn target(pod: &k8s_openapi::api::core::v1::Pod) -> Option<Target> {
    let address = observe::address(pod)?;
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    Some(Target {
        targets: [format!("{host}:{}", ports::RUNTIME_HTTP)],
        labels: TargetLabels {
            namespace: pod.namespace()?,
            model: pod.labels().get(labels::MODEL)?.clone(),
            pod: pod.name_any(),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str) -> k8s_openapi::api::core::v1::Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "tiny-1", "labels": {labels::MODEL: "tiny"}},
            "status": {"phase": phase, "podIP": "10.0.0.7"},
        }))
        .unwrap()
    }

    #[test]
    fn a_running_pod_is_a_target_with_the_labels_that_queries_use() {
        assert_eq!(
            serde_json::to_value(target(&pod("Running"))).unwrap(),
            json!({"targets": ["10.0.0.7:8000"], "labels": {"namespace": "shop", "model": "tiny", "pod": "tiny-1"}})
        );
        assert_eq!(target(&pod("Pending")), None);
    }
}

//! `/healthz`, `/readyz` and `/metrics`, on a port of their own that no client reaches.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{app::App, routes::watch::Watched};

/// What the endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// The gateway.
    pub app: Arc<App>,
    /// The caches.
    pub watched: Watched,
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
        .with_state(Arc::new(admin));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Ready once the caches are filled, until it drains.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.app.life.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match admin.watched.filled().now_or_never() {
        Some(true) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet\n").into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.app.metrics.page(&admin.app.desk.counts(), admin.app.bodies.held()) {
        Ok(page) => ([("content-type", "text/plain; version=0.0.4")], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

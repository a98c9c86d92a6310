//! `/healthz`, `/readyz`, `/metrics` and `/routable`, on a port of their own that no client reaches.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vlm_contract::routable::{self as contract, Question};

use crate::{app::App, routable, routes::watch::Watched};

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
    let asked = questions(Arc::clone(&admin.app));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(admin))
        .merge(asked);
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

/// The route by which the operator asks whether a new replica answers.
pub fn questions(app: Arc<App>) -> Router {
    Router::new()
        .route(contract::PATH, post(answers))
        .layer(DefaultBodyLimit::max(contract::LONGEST_QUESTION))
        .with_state(app)
}

async fn answers(State(app): State<Arc<App>>, Json(question): Json<Question>) -> Response {
    match routable::ask(&app, question).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => (refusal.status(), format!("{refusal}\n")).into_response(),
    }
}

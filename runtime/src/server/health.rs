//! `/health` (the process lives), `/ready` (send requests here), `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::app::App;
use super::error::{ApiError, LoadState};
use super::lifecycle::Phase;

#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
}

/// 200 as long as the process answers.
pub async fn health() -> Response {
    Json(Report { status: "ok", loaded_bytes: None, total_bytes: None }).into_response()
}

/// 200 when requests are welcome, else 503 and why; while the model loads, how far it is.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let phase = app.lifecycle.phase();
    let stopped = app.snapshot().is_some_and(|now| now.stopped);
    let status = match phase {
        Phase::Ready if !stopped => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let word = if stopped { "stopped" } else { phase.word() };
    let (loaded_bytes, total_bytes) = match app.load_state() {
        LoadState::Reading(read, total) if phase == Phase::Loading => (Some(read), Some(total)),
        _ => (None, None),
    };
    (status, Json(Report { status: word, loaded_bytes, total_bytes })).into_response()
}

/// Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.render(app.snapshot().as_ref()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            ApiError::Internal.into_response()
        }
    }
}

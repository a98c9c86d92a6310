//! The routes of the API, and the connections that they are asked over.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware,
    routing::{get, post},
};

use crate::{
    app::App,
    error::{GatewayError, excerpt},
    proxy,
};

pub mod admin;
pub mod listen;
mod models;
pub mod surround;

/// All routes over one state.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(proxy::forward))
        .route("/v1/completions", post(proxy::forward))
        .route("/v1/responses", post(proxy::forward))
        .route("/v1/models", get(models::list))
        // A name may hold a namespace and a slash.
        .route("/v1/models/{*id}", get(models::one))
        .fallback(async |State(app): State<Arc<App>>, request: Request| {
            app.invalid(GatewayError::Route { path: excerpt(request.uri().path()) })
        })
        .method_not_allowed_fallback(async |State(app): State<Arc<App>>, request: Request| {
            app.invalid(GatewayError::Method { method: excerpt(request.method().as_str()) })
        })
        // The body is bounded where it is read.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), surround::surround))
        .with_state(app)
}

//! The routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::routing::{get, post};
use vlm_contract::continuation;

use super::app::App;
use super::error::{ApiError, excerpt};
use super::{
    auth, chat, completions, continuation as resumed, cors, head, health, models, openapi, request_id, responses,
    tokenize,
};

/// All routes over one state.
pub fn router(app: Arc<App>) -> Router {
    surrounded(routes(), app)
}

fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/models", get(models::list))
        // A name may hold slashes, as those of the hub do.
        .route("/v1/models/{*id}", get(models::one))
        .route(continuation::PATH, post(resumed::resume))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
}

fn surrounded(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(async |request: Request| ApiError::Route { path: excerpt(request.uri().path()) })
        .method_not_allowed_fallback(async |request: Request| ApiError::Method {
            method: excerpt(request.method().as_str()),
        })
        // The body is bounded where it is read.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::identify))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), cors::share))
        .layer(middleware::from_fn(head::limit))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), request_id::surround))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, StatusCode};
    use axum::response::Response;
    use tower::ServiceExt;
    use vlm_contract::openai::error::ErrorBody;

    use super::super::app::tests::app;
    use super::super::lifecycle::Phase;
    use super::*;

    async fn send(app: &Arc<App>, method: Method, path: &str) -> Response {
        let routes = routes().route("/panic", get(async || -> String { panic!("on purpose") }));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        surrounded(routes, Arc::clone(app)).oneshot(request).await.unwrap()
    }

    async fn error(response: Response) -> ErrorBody {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn unknown_routes_and_methods_get_error_bodies() {
        let app = Arc::new(app());
        let response = send(&app, Method::GET, "/v1/nothing").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(error(response).await.error.code.as_deref(), Some("unknown_url"));
        let response = send(&app, Method::GET, "/v1/chat/completions").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(error(response).await.error.code.as_deref(), Some("method_not_allowed"));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_a_body_and_an_id() {
        let response = send(&Arc::new(app()), Method::GET, "/panic").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key("x-request-id"));
        let error = error(response).await.error;
        assert!(!error.message.contains("on purpose"));
        assert_eq!(error.kind, "server_error");
    }

    #[tokio::test]
    async fn a_loading_server_is_healthy_but_not_ready() {
        let app = Arc::new(app());
        assert_eq!(send(&app, Method::GET, "/health").await.status(), StatusCode::OK);
        let ready = send(&app, Method::GET, "/ready").await;
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = to_bytes(ready.into_body(), 1024).await.unwrap();
        assert_eq!(&body[..], br#"{"status":"loading"}"#);
        let refused = send(&app, Method::POST, "/v1/chat/completions").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        let models = send(&app, Method::GET, "/v1/models").await;
        assert_eq!(models.status(), StatusCode::SERVICE_UNAVAILABLE);
        let metrics = send(&app, Method::GET, "/metrics").await;
        let text = to_bytes(metrics.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains("vlm_requests_refused_total{reason=\"not_ready\"} 1"));
        assert!(text.contains("vlm_requests_arrived_total{via=\"direct\"} 1"));
    }

    #[tokio::test]
    async fn a_loading_server_says_how_far_it_is() {
        let app = Arc::new(app());
        app.progress.begin(100);
        app.progress.add(40);
        let ready = send(&app, Method::GET, "/ready").await;
        let body = to_bytes(ready.into_body(), 1024).await.unwrap();
        assert_eq!(&body[..], br#"{"status":"loading","loaded_bytes":40,"total_bytes":100}"#);
        let refused = send(&app, Method::POST, "/v1/chat/completions").await;
        assert!(error(refused).await.error.message.contains("40 of 100 bytes"));
        app.lifecycle.advance(Phase::Closed);
        let ready = send(&app, Method::GET, "/ready").await;
        let body = to_bytes(ready.into_body(), 1024).await.unwrap();
        assert_eq!(&body[..], br#"{"status":"draining"}"#);
    }

    #[tokio::test]
    async fn a_draining_server_sends_its_clients_elsewhere() {
        let app = Arc::new(app());
        let response = send(&app, Method::GET, "/health").await;
        assert!(!response.headers().contains_key("connection"));
        app.lifecycle.advance(Phase::Draining);
        let response = send(&app, Method::GET, "/ready").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["connection"], "close");
        app.lifecycle.advance(Phase::Closed);
        let refused = send(&app, Method::POST, "/v1/chat/completions").await;
        assert_eq!(refused.headers()["retry-after"], "0");
    }
}

//! `GET /v1/models` and `GET /v1/models/{id}`: what `VisionModels` there are, whether they run or sleep.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use vlm_contract::openai::models::{Model, ModelList};

use crate::{
    app::App,
    error::{GatewayError, excerpt},
    routes::Route,
};

/// Every model, by the shortest name that finds it.
pub(super) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    let data = app.routes.catalogue().list().map(|(name, route)| model(name, route)).collect();
    Json(ModelList { object: "list".to_owned(), data })
}

/// One model, by any of its names.
pub(super) async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Model>, GatewayError> {
    match app.routes.catalogue().find(&name) {
        Some(route) => Ok(Json(model(name, route))),
        None => Err(GatewayError::ModelNotFound { asked: excerpt(&name) }),
    }
}

fn model(name: String, route: &Route) -> Model {
    Model {
        id: name,
        object: "model".to_owned(),
        created: u64::try_from(route.created).unwrap_or_default(),
        owned_by: "vlm-operator".to_owned(),
        max_model_len: route.max_tokens,
    }
}

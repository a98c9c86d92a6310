//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use vlm_contract::openai::models::{Model, ModelList};

use super::app::App;
use super::error::ApiError;

/// Every name of the model.
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<ModelList>, ApiError> {
    let data = app.names.iter().map(|name| model(&app, name)).collect::<Result<_, _>>()?;
    Ok(Json(ModelList { object: "list".into(), data }))
}

/// One name.
pub async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Model>, ApiError> {
    let name = app.resolve(Some(&name))?;
    model(&app, &name).map(Json)
}

fn model(app: &App, name: &str) -> Result<Model, ApiError> {
    Ok(Model {
        id: name.to_owned(),
        object: "model".into(),
        created: app.started,
        owned_by: "vlm-operator".into(),
        max_model_len: Some(app.model()?.max_tokens),
    })
}

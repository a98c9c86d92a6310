//! `GET /v1/models`.

use serde::{Deserialize, Serialize};

/// The list of models.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Model {
    /// Name to put into a request's `model`.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Seconds since 1970 at which the server started; from the gateway, at which the model was made.
    pub created: u64,
    /// Always `vlm-operator`.
    pub owned_by: String,
    /// Longest sequence in tokens, prompt and answer together; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<usize>,
}

//! Writes a status, when it differs from what is there. Effects: writes.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use vlm_crds::{VisionModel, status::VisionModelStatus};

use crate::build::labels;

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing the status failed")]
pub struct PublishError(#[source] Box<kube::Error>);

/// Writes `next` over `previous`; returns the object, or `None` when there was nothing to write.
pub async fn publish(
    client: &Client,
    model: &VisionModel,
    previous: &VisionModelStatus,
    next: &VisionModelStatus,
) -> Result<Option<VisionModel>, PublishError> {
    if previous == next {
        return Ok(None);
    }
    let api: Api<VisionModel> = Api::namespaced(client.clone(), &model.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": VisionModel::api_version(&()),
        "kind": VisionModel::kind(&()),
        "metadata": {"name": model.name_any(), "uid": model.metadata.uid},
        "status": next,
    });
    let params = PatchParams::apply(labels::MANAGER).force();
    let written = api
        .patch_status(&model.name_any(), &params, &Patch::Apply(patch))
        .await
        .map_err(|e| PublishError(Box::new(e)))?;
    Ok(Some(written))
}

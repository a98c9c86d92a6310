//! The finished `CustomResourceDefinition`: what the derive gives, and a default for the status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::VisionModel;

/// The definition of `VisionModel` as it is installed.
///
/// A new object has `status.observedGeneration: -1`, so that tools which compare it with the
/// generation see work in progress until the operator has looked at the object. The default sits on
/// the property `status`: one inside it would never apply while the status is absent.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = VisionModel::crd();
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
            .and_then(|s| s.properties.as_mut())
            .and_then(|p| p.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
            status.description = Some("What the operator made of the spec.".to_owned());
        }
    }
    crd
}

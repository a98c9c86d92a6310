//! The finished `CustomResourceDefinition`: what the derive gives, and a default for the status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn schema() -> Value {
        let version = definition().spec.versions.remove(0);
        serde_json::to_value(version.schema.unwrap().open_api_v3_schema.unwrap()).unwrap()
    }

    /// Calls `visit` with the path and content of every schema inside `schema`.
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, visit);
        }
        if schema["items"].is_object() {
            walk(&format!("{path}[]"), &schema["items"], visit);
        }
        if schema["additionalProperties"].is_object() {
            walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
        }
    }

    #[test]
    fn every_string_list_and_map_has_a_bound_and_every_field_a_text() {
        let mut missing = Vec::new();
        for part in ["spec", "status"] {
            walk(part, &schema()["properties"][part], &mut |path, schema| {
                let bound = match schema["type"].as_str() {
                    Some("string") => "maxLength",
                    Some("array") => "maxItems",
                    Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
                    Some("object" | "integer" | "boolean") => "type",
                    _ if schema["x-kubernetes-int-or-string"] == true => "maxLength",
                    other => panic!("{path}: {other:?}"),
                };
                let is_field = !path.ends_with("[]") && !path.ends_with("{}");
                if schema[bound].is_null() || (is_field && schema["description"].is_null()) {
                    missing.push(path.to_owned());
                }
            });
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_rule_says_in_words_what_is_wrong() {
        let mut rules = 0;
        walk("", &schema(), &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules += 1;
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.split(' ').count() > 5, "{path}: {rule}");
            }
        });
        assert!(rules >= 10, "{rules}");
    }

    #[test]
    fn only_the_model_is_required() {
        let schema = schema();
        assert_eq!(schema["properties"]["spec"]["required"], json!(["model"]));
        assert_eq!(schema["properties"]["spec"]["properties"]["model"]["required"], json!(["uri"]));
    }

    #[test]
    fn a_new_object_counts_as_not_observed() {
        let schema = schema();
        assert_eq!(schema["properties"]["status"]["default"], json!({"observedGeneration": -1}));
        let inner = &schema["properties"]["status"]["properties"]["observedGeneration"];
        assert_eq!(inner["default"], Value::Null, "one inside would never apply");
    }

    #[test]
    fn scale_columns_and_size_are_as_promised() {
        let crd = definition();
        let yaml = serde_yaml::to_string(&crd).unwrap();
        assert!(yaml.len() < 256 * 1024);
        assert!(!yaml.contains("{{"), "Helm would take it for a template");
        let version = &crd.spec.versions[0];
        let scale = version.subresources.as_ref().unwrap().scale.as_ref().unwrap();
        assert_eq!(scale.spec_replicas_path, ".spec.replicas");
        assert_eq!(scale.status_replicas_path, ".status.replicas.current");
        assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
        let columns = version.additional_printer_columns.as_ref().unwrap();
        let names: Vec<_> = columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["Model", "Quant", "GPU", "Ready", "Status", "Cost/h", "Age", "Message"]);
        let wide: Vec<_> = columns.iter().filter(|c| c.priority == Some(1)).map(|c| c.name.as_str()).collect();
        assert_eq!(wide, ["Message"], "too long for a plain `kubectl get`");
        assert_eq!(crd.metadata.annotations.unwrap()["helm.sh/resource-policy"], "keep");
    }
}

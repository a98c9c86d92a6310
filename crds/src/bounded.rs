//! Schemas with bounds for types that come from `k8s-openapi`, which states none. Without bounds
//! the API server has to assume the worst cost for every validation rule and refuses the definition.

use schemars::{Schema, SchemaGenerator, json_schema};
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::QuantizationChoice;

/// Longest key of a label or annotation: a DNS subdomain, a slash and a name.
const KEY_MAX: u32 = 317;

/// `{string: string}` with up to 32 entries, values as of labels.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// `{string: string}` with up to 32 entries, values as of annotations.
pub(crate) fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// `{resource name: quantity}`.
pub(crate) fn quantity_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$",
        },
    })
}

/// The `tolerations` of a pod.
pub(crate) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {
            "type": "object",
            "properties": {
                "key": {"type": "string", "maxLength": KEY_MAX, "description": "Key of the taint; empty matches every taint."},
                "operator": {"type": "string", "maxLength": 16, "enum": ["Exists", "Equal"], "description": "How key and value are compared; Equal by default."},
                "value": {"type": "string", "maxLength": 63, "description": "Value of the taint."},
                "effect": {"type": "string", "maxLength": 32, "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"], "description": "Effect of the taint; absent matches every effect."},
                "tolerationSeconds": {"type": "integer", "format": "int64", "description": "How long a NoExecute taint is tolerated; absent means for ever."},
            },
        },
    })
}

/// The number formats that a manifest may name.
pub(crate) fn quantization(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 8, "enum": QuantizationChoice::ALL.map(QuantizationChoice::name)})
}

/// The number formats of keys and values that a manifest may name.
pub(crate) fn kv_cache_dtype(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 8, "enum": KvCacheDtype::ALL.map(KvCacheDtype::name)})
}

/// Whether a new model starts one replica.
pub(crate) fn verify(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 8, "enum": ["Once", "Never"]})
}

/// Further names of a model. A slash would make one that has a namespace.
pub(crate) fn aliases(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$')",
                "message": "an alias has letters, digits and any of . _ : -, and begins and ends with a letter or a digit; a namespace is no part of it",
            }],
        },
    })
}

/// Names of objects in the same namespace.
pub(crate) fn object_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the Secret."}},
        },
    })
}

/// The `env` of a container, with values from Secrets and ConfigMaps.
pub(crate) fn env(_: &mut SchemaGenerator) -> Schema {
    let key_ref = |object: &str| {
        serde_json::json!({
            "type": "object",
            "description": format!("A key of a {object} of the same namespace."),
            "required": ["name", "key"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 253, "description": format!("Name of the {object}.")},
                "key": {"type": "string", "minLength": 1, "maxLength": 253, "description": "The key."},
                "optional": {"type": "boolean", "description": "Start also when it does not exist."},
            },
        })
    };
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 128, "description": "Name of the variable."},
                "value": {"type": "string", "maxLength": 4096, "description": "The value itself."},
                "valueFrom": {
                    "type": "object",
                    "description": "Where the value comes from.",
                    "properties": {"secretKeyRef": key_ref("Secret"), "configMapKeyRef": key_ref("ConfigMap")},
                    "x-kubernetes-validations": [{
                        "rule": "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                        "message": "valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
                    }],
                },
            },
            "x-kubernetes-validations": [{
                "rule": "!(has(self.value) && has(self.valueFrom))",
                "message": "a variable has either value or valueFrom, not both",
            }],
        },
    })
}

/// Conditions as Kubernetes has them everywhere, keyed by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "description": "What the condition says."},
                "status": {"type": "string", "maxLength": 8, "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation that this was said of."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64, "description": "When the status changed last."},
                "reason": {"type": "string", "maxLength": 128, "description": "One word for why."},
                "message": {"type": "string", "maxLength": 4096, "description": "Why, and what to do, in a sentence."},
            },
        },
    })
}

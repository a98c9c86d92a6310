//! The `VisionModels` of a file, as far as a plan needs them.

use serde::Deserialize;
use serde_yaml::Value;
use vlm_catalog::footprint::Wish;
use vlm_catalog::quantity;
use vlm_crds::VisionModel;

/// Bytes that a file may have; an object of the API server has fewer.
const MAX_BYTES: usize = 4 << 20;
const KIND: &str = "VisionModel";

/// What one `VisionModel` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Where the weights are.
    pub uri: String,
    /// Branch, tag or commit of a repository.
    pub revision: String,
    /// Quantisation, context and concurrency.
    pub wish: Wish,
    /// `spec.gpu.type`.
    pub gpu_type: Option<String>,
    /// Memory limit of the server's container.
    pub memory_limit_bytes: Option<u64>,
}

/// Why a file cannot be planned; without a full stop.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More than a manifest has.
    #[error("it has {0} bytes, more than the {MAX_BYTES} that are read")]
    TooLarge(usize),
    /// No YAML.
    #[error("it is no YAML: {0}")]
    Yaml(serde_yaml::Error),
    /// No `VisionModel`.
    #[error("it has no object of the kind {KIND}")]
    None,
    /// A field is not what it must be.
    #[error("{name}: {reason}")]
    Field {
        /// Name of the object, as far as it has one.
        name: String,
        /// Which field, and why.
        reason: String,
    },
}

/// The `VisionModels` of a file of one or more YAML documents, lists among them.
///
/// # Errors
/// When it is no YAML, has none, or one of them is not what the API takes.
pub fn read(yaml: &str) -> Result<Vec<Manifest>, ManifestError> {
    if yaml.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge(yaml.len()));
    }
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).map_err(ManifestError::Yaml)?;
        match value.get("items").and_then(Value::as_sequence) {
            Some(items) => found.extend(items.iter().filter(|item| is_model(item)).map(one)),
            None if is_model(&value) => found.push(one(&value)),
            None => {}
        }
    }
    if found.is_empty() {
        return Err(ManifestError::None);
    }
    found.into_iter().collect()
}

fn is_model(value: &Value) -> bool {
    value.get("kind").and_then(Value::as_str) == Some(KIND)
}

fn one(value: &Value) -> Result<Manifest, ManifestError> {
    let name = value.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let name = name.unwrap_or("a VisionModel without a name").chars().take(253).collect::<String>();
    let wrong = |reason: String| ManifestError::Field { name: name.clone(), reason };
    let model: VisionModel = typed(value).map_err(wrong)?;
    let quantization = model.spec.quantization();
    let context = model.spec.context.unwrap_or_default();
    let limits = model.spec.pod.and_then(|pod| pod.resources).map(|resources| resources.limits);
    let limit = limits.as_ref().and_then(|limits| limits.get("memory"));
    let memory_limit_bytes = limit
        .map(|limit| {
            quantity::bytes(&limit.0).ok_or_else(|| wrong(format!("the memory limit {:?} is no amount", limit.0)))
        })
        .transpose()?;
    let count = |field: &str, value: Option<i32>| match value {
        Some(value) if value < 1 => Err(wrong(format!("spec.context.{field} is {value}, but must be at least 1"))),
        value => Ok(value.map(i64::from).and_then(|value| u64::try_from(value).ok())),
    };
    let wish = Wish {
        quantization,
        max_tokens: count("maxTokens", context.max_tokens)?,
        max_concurrency: count("maxConcurrency", context.max_concurrency)?,
        kv_cache_dtype: context.kv_cache_dtype.unwrap_or_default(),
    };
    Ok(Manifest {
        revision: model.spec.model.revision().to_owned(),
        uri: model.spec.model.uri,
        wish,
        gpu_type: model.spec.gpu.map(|gpu| gpu.r#type),
        memory_limit_bytes,
        name,
    })
}

fn typed<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| error.to_string().chars().take(500).collect())
}

#[cfg(test)]
mod tests {
    use vlm_catalog::kv_cache::KvCacheDtype;
    use vlm_catalog::quantization::{Quantization, QuantizationChoice};

    use super::*;

    const FULL: &str = "
apiVersion: vlm-operator.dev/v1alpha1
kind: VisionModel
metadata: {name: llava}
spec:
  model: {uri: 'pvc://weights/llava'}
  quantization: int4
  gpu: {type: nvidia-l4}
  context: {maxTokens: 2048, maxConcurrency: 4, kvCacheDtype: fp8}
  pod: {resources: {limits: {memory: 16Gi}}}
";

    #[test]
    fn all_that_a_plan_needs_is_read() {
        let manifest = read(FULL).unwrap().remove(0);
        let wish = Wish {
            quantization: QuantizationChoice::Fixed(Quantization::Int4),
            max_tokens: Some(2048),
            max_concurrency: Some(4),
            kv_cache_dtype: KvCacheDtype::Fp8,
        };
        assert_eq!((manifest.name.as_str(), manifest.uri.as_str()), ("llava", "pvc://weights/llava"));
        assert_eq!((manifest.wish, manifest.gpu_type.as_deref()), (wish, Some("nvidia-l4")));
        assert_eq!(manifest.memory_limit_bytes, Some(16 << 30));
    }

    #[test]
    fn other_objects_are_passed_over_and_lists_are_opened() {
        let list = format!(
            "kind: ConfigMap\n---\n---\nkind: List\nitems:\n- {{kind: VisionModel, metadata: {{name: b}}, spec: {{model: {{uri: x}}}}}}\n---{FULL}"
        );
        let names: Vec<_> = read(&list).unwrap().into_iter().map(|manifest| manifest.name).collect();
        assert_eq!(names, ["b", "llava"]);
        let b = read(&list).unwrap().remove(0);
        let stored = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
        assert_eq!((b.wish, b.gpu_type, b.memory_limit_bytes), (stored, None, None));
        assert_eq!(b.revision, "main");
        let tagged = FULL.replace("{uri: 'pvc://weights/llava'}", "{uri: 'hf://a/b', revision: v1}");
        assert_eq!(read(&tagged).unwrap()[0].revision, "v1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |from: &str, to: &str| read(&FULL.replace(from, to)).unwrap_err().to_string();
        for (error, expected) in [
            (with("kind: VisionModel", "kind: Pod"), "no object of the kind VisionModel"),
            (with("quantization: int4", "quantization: int3"), "llava: spec.quantization: the quantization \"int3\""),
            (with("{uri: 'pvc://weights/llava'}", "{}"), "llava: spec.model: missing field `uri`"),
            (with("type: nvidia-l4", "kind: nvidia-l4"), "missing field `type`"),
            (with("maxTokens: 2048", "maxTokens: -5"), "spec.context.maxTokens is -5"),
            (with("maxTokens: 2048", "maxTokens: many"), "spec.context.maxTokens: invalid type"),
            (with("16Gi", "16 gigs"), "the memory limit \"16 gigs\""),
            (with("metadata:", "metadata: ["), "no YAML"),
            (read(&"a".repeat(5 << 20)).unwrap_err().to_string(), "more than the"),
            (read("").unwrap_err().to_string(), "no object"),
        ] {
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }
}

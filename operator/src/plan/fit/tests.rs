//! Verdicts on a real description, and what is said of them.

use serde_json::{Value, json};
use vlm_catalog::inspection::Found;

use super::*;

/// What a look at the checkpoint of a model of the registry tells.
fn inspection(name: &str) -> Inspection {
    let path = format!("{}/../catalog/tests/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let raw = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let found = Found { revision: None, weight_bytes: None, tensors: None::<Vec<(&str, &[usize])>> };
    Inspection::new(&raw, found).unwrap()
}

fn types() -> GpuTypes {
    GpuTypes::parse(include_str!("../../../../charts/vlm-operator/gpu-types.yaml")).unwrap()
}

fn spec(fields: &Value) -> VisionModelSpec {
    let mut all = json!({"model": {"uri": "pvc://weights/m"}});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn on(gpu: &str, model: &str, mut fields: Value) -> Result<Fitted, Problem> {
    fields["gpu"] = json!({"type": gpu});
    fit(&spec(&fields), &inspection(model), Some(types().get(gpu).unwrap()), &types())
}

#[test]
fn only_a_memory_that_is_known_is_judged() {
    let limit = |memory: &str| json!({"pod": {"resources": {"limits": {"memory": memory}}}});
    for (fields, expected) in [
        (json!({}), false),
        (json!({"quantization": "auto"}), false),
        (json!({"pod": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}}}), false),
        (limit("0"), false),
        (limit("1Gi"), true),
        (json!({"gpu": {"type": "nvidia-l4"}}), true),
    ] {
        assert_eq!(is_judged(&spec(&fields)), expected, "{fields}");
    }
    assert_eq!(unjudged_quantization(&spec(&json!({"quantization": "auto"}))), Quantization::None);
    assert_eq!(unjudged_quantization(&spec(&json!({"quantization": "int4"}))), Quantization::Int4);
}

#[test]
fn what_fits_gives_the_server_its_numbers_and_the_status_its_words() {
    let fitted = on("nvidia-l4", "llava-1.5-7b-hf", json!({})).unwrap();
    assert_eq!(fitted.problem(), None);
    let status = fitted.to_status();
    assert_eq!((status.verdict.as_str(), &status.suggestion), ("Fits", &None));
    let sum = |b: &status::Breakdown| {
        b.embedding_bytes
            + b.decoder_bytes
            + b.head_bytes
            + b.tower_bytes
            + b.projector_bytes
            + b.image_bytes
            + b.workspace_bytes
            + b.context_bytes
            + b.kv_bytes
    };
    assert_eq!(sum(&status.breakdown), status.required_bytes);
    assert!(status.required_bytes <= status.available_bytes);
    let mut resolved = Resolved::default();
    fitted.note(&mut resolved);
    assert_eq!((resolved.quantization.as_deref(), resolved.max_tokens), (Some("none"), Some(4096)));
    assert_eq!(i64::from(resolved.max_concurrency.unwrap()), status.typical_requests);
    assert!(fitted.in_words().contains("it fits"), "{}", fitted.in_words());
}

#[test]
fn what_does_not_fit_names_the_longest_context_and_the_cheapest_type() {
    let fitted = on("nvidia-l4", "llava-1.5-13b-hf", json!({})).unwrap();
    let problem = fitted.problem().unwrap();
    assert_eq!(problem.trouble, Trouble::DoesNotFit);
    for part in ["does not fit", "quantization: int8", "gpu.type: nvidia-a100-80gb-mig-3g.40gb"] {
        assert!(problem.message.contains(part), "{part}: {}", problem.message);
    }
    assert_eq!(fitted.to_status().verdict, "DoesNotFit");
    assert!(problem.message.ends_with(&fitted.to_status().suggestion.unwrap()));
    // Weights fit, but not this context beside them.
    let long = on("nvidia-l4", "InternVL2-4B", json!({"context": {"maxTokens": 65536}})).unwrap();
    assert!(long.problem().unwrap().message.contains("context.maxTokens: "), "{}", long.in_words());
}

#[test]
fn keys_and_values_in_8_bits_leave_room_for_nearly_twice_as_many_requests() {
    let of = |kept: &str| {
        let context = json!({"maxTokens": 4096, "maxConcurrency": 4, "kvCacheDtype": kept});
        on("nvidia-h200", "llava-1.5-7b-hf", json!({"context": context})).unwrap()
    };
    let (whole, half) = (of("auto"), of("int8"));
    let (more, fewer) = (half.numbers().typical_requests, whole.numbers().typical_requests);
    assert!(more * 100 > fewer * 190 && more < fewer * 2, "{fewer} and {more}");
    assert_eq!(of("fp8").numbers().typical_requests, more);
    assert!(half.in_words().contains("for keys and values (int8) of"), "{}", half.in_words());
    assert!(whole.in_words().contains("for keys and values of"), "{}", whole.in_words());
}

#[test]
fn auto_says_what_it_chose_and_why() {
    let fitted = on("nvidia-l4", "llava-1.5-13b-hf", json!({"quantization": "auto"})).unwrap();
    assert_eq!(fitted.numbers().quantization, Quantization::Int8);
    let words = fitted.in_words();
    assert!(words.contains("quantization int8 was chosen: ") && words.contains("not with none"), "{words}");
    // More at a time than int8 leaves room for.
    let many = json!({"quantization": "auto", "context": {"maxConcurrency": 12}});
    assert_eq!(on("nvidia-l4", "llava-1.5-13b-hf", many).unwrap().numbers().quantization, Quantization::Int4);
}

#[test]
fn the_limit_of_the_container_is_the_memory_of_a_replica_without_gpu() {
    let with = |memory: &str, fields: Value| {
        let mut fields = fields;
        fields["pod"] = json!({"resources": {"limits": {"memory": memory}}});
        fit(&spec(&fields), &inspection("InternVL2-1B"), None, &types()).unwrap()
    };
    let small = with("2Gi", json!({}));
    let message = small.problem().unwrap().message;
    assert!(message.contains("container's limit of 2.0 GiB") && message.contains("a memory limit of"), "{message}");
    let large = with("16Gi", json!({}));
    assert_eq!(
        (large.problem(), large.numbers().max_concurrency),
        (None, 8),
        "cores are not faster for more at a time"
    );
    let asked = with("16Gi", json!({"context": {"maxConcurrency": 20}}));
    assert_eq!(asked.numbers().max_concurrency, 20);
}

#[test]
fn a_context_that_the_model_does_not_take_is_the_manifests_fault() {
    let problem = on("nvidia-h200", "llava-1.5-7b-hf", json!({"context": {"maxTokens": 8192}})).unwrap_err();
    assert_eq!(problem.trouble, Trouble::InvalidArguments);
    assert!(problem.message.contains("8192") && problem.message.contains("4096"), "{}", problem.message);
}

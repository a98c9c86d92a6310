//! What is written is read again as it was; what was changed on its way is refused.

use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Part;
use crate::quantization::Quantization;

fn raw(name: &str) -> RawConfig {
    let path = format!("{}/tests/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Tensors of the shapes that the model has, under names of a layout.
fn tensors(raw: &RawConfig) -> Vec<(String, Vec<usize>)> {
    let size = CheckpointSize::of(&describe(raw).unwrap(), Head::Stored);
    let name = |part| match part {
        Part::Embedding => "model.embed_tokens.weight",
        Part::DecoderLinear => "model.layers.0.mlp.weight",
        Part::DecoderNorm => "model.norm.bias",
        Part::Head => "lm_head.weight",
        Part::Tower => "vision_tower.x",
        Part::Projector => "multi_modal_projector.x",
        Part::Newline => "image_newline",
    };
    let one =
        |tensors: &Tensors| (name(tensors.part).to_owned(), vec![tensors.rows as usize, tensors.row_length as usize]);
    size.tensors().iter().flat_map(|t| vec![one(t); t.count as usize]).collect()
}

fn inspection(name: &str) -> Inspection {
    let raw = raw(name);
    let stored = tensors(&raw);
    let tensors = Some(stored.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())));
    Inspection::new(&raw, Found { revision: Some("0".repeat(40)), weight_bytes: Some(u64::MAX), tensors }).unwrap()
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(format!("{}/tests/models", env!("CARGO_MANIFEST_DIR"))).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap().replace(".json", "")).collect()
}

#[test]
fn every_model_comes_through_a_termination_message_as_it_was() {
    let mut longest = 0;
    for name in names() {
        let inspection = inspection(&name);
        let written = serde_json::to_string(&inspection).unwrap();
        assert_eq!(serde_json::from_str::<Inspection>(&written).unwrap(), inspection, "{name}");
        let described = CheckpointSize::of(inspection.config(), Head::Stored);
        for quantization in Quantization::ALL {
            assert_eq!(inspection.size().bytes(quantization), described.bytes(quantization), "{name}");
        }
        longest = longest.max(written.len());
    }
    assert!((500..MAX_BYTES * 3 / 4).contains(&longest), "{longest}");
}

#[test]
fn without_headers_the_sizes_are_those_of_the_description() {
    let found = Found { revision: None, weight_bytes: None, tensors: None::<Vec<(&str, &[usize])>> };
    let inspection = Inspection::new(&raw("InternVL3-8B"), found).unwrap();
    assert!(!inspection.is_exact() && inspection.weight_bytes().is_none());
    assert_eq!(inspection.size(), &CheckpointSize::of(inspection.config(), Head::Stored));
    assert_eq!(serde_json::from_value::<Inspection>(serde_json::to_value(&inspection).unwrap()).unwrap(), inspection);
}

#[test]
fn tensors_of_another_model_are_refused() {
    let tensors: Vec<(&str, &[usize])> = vec![("model.embed_tokens.weight", &[1, 1])];
    let found = Found { revision: None, weight_bytes: Some(4), tensors: Some(tensors) };
    let error = Inspection::new(&raw("InternVL3-8B"), found).unwrap_err();
    assert!(matches!(error, InspectionError::Stored(_)), "{error}");
    assert!(error.to_string().contains("no tensor of the decoder"), "{error}");
}

#[test]
fn numbers_that_no_model_has_are_refused_and_nothing_overflows() {
    let good = serde_json::to_value(inspection("llava-v1.6-34b")).unwrap();
    let numbers = [
        "text/vocab_size",
        "text/hidden_size",
        "text/intermediate_size",
        "text/layers",
        "text/heads",
        "text/kv_heads",
        "text/head_dim",
        "text/max_positions",
        "vision/hidden_size",
        "vision/intermediate_size",
        "vision/layers",
        "vision/heads",
        "vision/image_size",
        "vision/patch_size",
        "vision/shuffle",
    ];
    for number in numbers {
        for hostile in [json!(0), json!(u64::MAX), json!(1_u64 << 40)] {
            let mut changed = good.clone();
            *changed.pointer_mut(&format!("/config/{number}")).unwrap() = hostile;
            let error = serde_json::from_value::<Inspection>(changed).unwrap_err().to_string();
            assert!(error.contains("outside of what any model has"), "{number}: {error}");
        }
    }
    for tensors in
        [json!([["decoderLinear", u64::MAX, u64::MAX, 2]]), json!(vec![("tower", 1, u64::MAX, 1); 9]), json!([])]
    {
        let mut changed = good.clone();
        changed["tensors"] = tensors;
        assert!(serde_json::from_value::<Inspection>(changed).is_err());
    }
    let mut changed = good;
    changed["config"]["tiling"] = json!({"AnyRes": {"pinpoints": vec![[1, 1]; 65]}});
    assert!(serde_json::from_value::<Inspection>(changed).is_err());
    assert!(serde_json::from_value::<Inspection>(Value::Null).is_err());
}

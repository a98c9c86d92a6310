//! What the catalogue reckons today, against what every model of the registry took on a GPU when it was measured.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::Value;
use vlm_catalog::quantization::Quantization;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::commands::bench::predicted_bytes;
use vlm_runtime::device::Demand;
use vlm_runtime::precision::Precision;

/// How much more a fit may reckon than what was taken: it counts the largest pictures, and those measured were small.
const MOST: f64 = 1.26;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn precision(model: &Value) -> Precision {
    let dtype = if model["dtype"] == "f16" { DType::F16 } else { DType::BF16 };
    let quantization = match model["quantization"].as_str().unwrap() {
        "int8" => Quantization::Int8,
        "int4" => Quantization::Int4,
        _ => Quantization::None,
    };
    Precision { dtype, quantization, ..Precision::F32 }
}

#[test]
fn no_model_took_more_than_a_fit_reckons_nor_much_less() {
    let mut measured = 0;
    for file in std::fs::read_dir(root().join("runtime/benches/results")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("models-") || file.extension().is_none_or(|kind| kind != "json") {
            continue;
        }
        let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for row in rows.iter().filter(|row| row["memory"].is_object()) {
            let what = format!("{} {} in {name}", row["name"], row["quantization"]);
            let number =
                |path: &str| row.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} of {what}"));
            let path = root().join(row["model"]["path"].as_str().unwrap());
            let checkpoint = Checkpoint::drawn(&path, &Device::Cpu).unwrap();
            let precision = precision(&row["model"]);
            let longest = (number("/settings/prompt_tokens") + number("/settings/output_tokens")) as usize;
            let batch = row["runs"].as_array().unwrap().iter().filter_map(|run| run["batch"].as_u64()).max().unwrap();
            let part = predicted_bytes(&checkpoint, precision, longest, batch as usize) as f64
                / number("/memory/without_kv_bytes") as f64;
            assert!((1.0..MOST).contains(&part), "{what}: a fit reckons {part:.3} of what was taken");
            let weights = Demand::of(&checkpoint, precision, longest, 1).weights as f64;
            let part = weights / number("/memory/weights_bytes") as f64;
            assert!((part - 1.0).abs() < 0.005, "{what}: the weights are {part:.4} of what is foreseen");
            measured += 1;
        }
    }
    // All geometries of the registry in all formats, but for the two that no GPU here holds unquantised.
    assert!(measured >= 61, "{measured} measurements");
}

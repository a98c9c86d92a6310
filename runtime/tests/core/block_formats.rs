//! The quantiser that the model is loaded with makes the numbers of which the references of int8 and int4 were
//! made, by another implementation of the block formats.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use vlm_catalog::quantization::{BlockFormat, LinearRole, Quantization};

use crate::cases;

#[derive(Deserialize)]
struct Expected {
    tensors: BTreeMap<String, Quantised>,
}

#[derive(Deserialize)]
struct Quantised {
    role: String,
    format: Option<String>,
    /// Of the dequantised numbers as little-endian f32.
    crc32: Option<u32>,
}

fn ggml(format: BlockFormat) -> GgmlDType {
    match format {
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q4_K => GgmlDType::Q4K,
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
    }
}

/// The checksum of IEEE 802.3, as zip files have it.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn weights(dir: &Path) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            all.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        }
    }
    all
}

/// How many tensors were compared.
fn compare(quantization: Quantization, expected: &Expected, weights: &HashMap<String, Tensor>, place: &str) -> usize {
    let mut compared = 0;
    for (name, facts) in &expected.tensors {
        let weight = &weights[name];
        let role = if facts.role == "head" { LinearRole::Head } else { LinearRole::Decoder };
        let format = quantization.format(role, weight.dims()[1]);
        assert_eq!(format.map(|format| format.to_string()), facts.format, "{place}, {name}");
        let Some(format) = format else { continue };
        let blocks = QTensor::quantize(&weight.to_dtype(DType::F32).unwrap(), ggml(format)).unwrap();
        let numbers: Vec<f32> = blocks.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let crc = crc32(numbers.iter().flat_map(|number| number.to_le_bytes()));
        assert_eq!(Some(crc), facts.crc32, "{place}, {name}, {format}");
        compared += 1;
    }
    compared
}

#[test]
fn the_references_were_made_of_the_numbers_that_are_loaded() {
    for name in cases::NAMES {
        let dir = cases::dir(name);
        let weights = weights(&dir);
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let path = dir.join(format!("expected.{quantization}.json"));
            let expected: Expected = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            // Two layers of attention and gate, whose way out has rows of no whole blocks; and the head.
            assert!(compare(quantization, &expected, &weights, name) > 2 * 3, "{name}");
        }
    }
}

/// Its rows are long enough for the super-blocks of `Q4_K`.
#[test]
fn the_references_of_the_example_were_made_of_the_numbers_that_are_loaded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava");
    let bytes = std::fs::read(root.join("references/quantized.json")).unwrap();
    let all: BTreeMap<String, Expected> = serde_json::from_slice(&bytes).unwrap();
    let weights = weights(&root.join("model"));
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let expected = &all[quantization.name()];
        assert_eq!(compare(quantization, expected, &weights, "tiny-llava"), 4 * 7 + 1);
    }
    let formats: Vec<_> = all["int4"].tensors.values().filter_map(|facts| facts.format.as_deref()).collect();
    assert!(formats.contains(&"Q4_K") && formats.contains(&"Q8_0"));
}

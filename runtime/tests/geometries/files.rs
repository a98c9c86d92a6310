//! A checkpoint of a real geometry on disk: its real configuration with few layers and a short vocabulary (rows of an
//! embedding do nothing that fewer rows do not), and random bf16 weights, none of them zero.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::architecture::{Dialect, Family, ModelConfig, describe};

use super::names::{self, Decoder};

/// Rows of the vocabulary.
const ROWS: usize = 2048;
/// The id of the image token, where `config.json` has one.
const IMAGE: usize = 2000;
/// A prime, so that rows of any length begin at another place of the table.
const TABLE: usize = 65_521;

/// Writes `config.json` and `model.safetensors` into `dir`.
pub fn write(config: &Path, dir: &Path, seed: u64) -> Result<(), String> {
    let mut json: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    reduce(&mut json);
    let raw: RawConfig = serde_json::from_value(json.clone()).map_err(|e| e.to_string())?;
    let mut described = describe(&raw).map_err(|e| e.to_string())?;
    if described.dialect == Dialect::Original && described.family != Family::InternVl {
        described.vision.layers = 2;
    }
    std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    weights(&described, decoder(&json), &dir.join("model.safetensors"), seed);
    Ok(())
}

/// One layer of the decoder; two of CLIP, whose last does not run, one of `InternViT`.
fn reduce(json: &mut Value) {
    let whole = json.as_object_mut().unwrap();
    for name in ["image_token_index", "image_token_id"] {
        if whole.get(name).is_some_and(Value::is_number) {
            whole.insert(name.to_owned(), json!(IMAGE));
        }
    }
    let nested = ["text_config", "llm_config"].into_iter().find(|name| whole.get(*name).is_some_and(Value::is_object));
    let text: &mut Map<String, Value> = match nested {
        Some(name) => whole[name].as_object_mut().unwrap(),
        None => whole,
    };
    text.insert("num_hidden_layers".to_owned(), json!(1));
    text.insert("vocab_size".to_owned(), json!(ROWS));
    if let Some(vision) = json["vision_config"].as_object_mut() {
        let clip = vision.get("model_type").is_none_or(|kind| kind == "clip_vision_model");
        vision.insert("num_hidden_layers".to_owned(), json!(if clip { 2 } else { 1 }));
    }
}

fn decoder(json: &Value) -> Decoder {
    match json["llm_config"]["architectures"][0].as_str() {
        Some("InternLM2ForCausalLM") => Decoder::Grouped,
        Some("Phi3ForCausalLM") => Decoder::Fused,
        _ => Decoder::Split,
    }
}

fn weights(config: &ModelConfig, stored: Decoder, path: &Path, seed: u64) {
    let tensors = names::all(config, stored);
    let (mut header, mut at) = (Map::new(), 0);
    for (name, shape) in &tensors {
        let bytes = 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, at + bytes]}));
        at += bytes;
    }
    // safetensors wants the order of the header to be that of the data, and this map sorts by name.
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let table = uniform(seed);
    for (n, (name, shape)) in tensors.iter().enumerate() {
        let (mean, spread) = distribution(name, shape);
        let numbers: Vec<u8> = table.iter().flat_map(|u| bf16(mean + spread * u)).collect();
        let mut left = 2 * shape.iter().product::<usize>();
        let mut first = 2 * (n * 7919 % TABLE);
        while left > 0 {
            let part = &numbers[first..(first + left).min(numbers.len())];
            file.write_all(part).unwrap();
            left -= part.len();
            first = 0;
        }
    }
    file.flush().unwrap();
}

/// Mean and largest distance from it: such that activations keep their size from layer to layer.
fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    let inputs: usize = shape[1..].iter().product();
    if shape.len() == 1 && name.ends_with("weight") {
        (1.0, 0.2)
    } else if name.contains(".ls") || name.contains(".lambda_") {
        (0.5, 0.2)
    } else if name.contains("embed") && !name.contains("patch") || name.contains("newline") {
        (0.0, 1.0)
    } else if shape.len() == 1 {
        (0.0, 0.1)
    } else {
        (0.0, (3.0 / inputs as f32).sqrt())
    }
}

/// Numbers between -1 and 1, none of them near zero.
fn uniform(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..TABLE).map(|_| next()).map(|u| if u.abs() < 1e-3 { 1e-3 } else { u }).collect()
}

fn bf16(value: f32) -> [u8; 2] {
    ((value.to_bits() >> 16) as u16).to_le_bytes()
}

//! Speed of a LLaVA of about a billion parameters with random weights, for one number format and as many threads as
//! the pool has: vision tower, prefill, decode. `decode.py` runs it beside llama.cpp and keeps the results.
//!
//! `decode make DIR` writes the checkpoint; `decode run DIR DTYPE QUANTIZATION PROMPT STEPS REPEATS` prints medians
//! as one line of JSON.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../tests/support/random_llava.rs"]
mod random_llava;

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use random_llava::Geometry;
use serde_json::json;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::image::{ImageKey, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, KvCache, Segment, nth_table, room_for};
use vlm_runtime::precision::Precision;

/// The tower of CLIP-L/14-336 and the decoder of `TinyLlama`.
const GEOMETRY: Geometry = Geometry {
    vocabulary: 32_000,
    hidden: 2048,
    inner: 5632,
    layers: 22,
    heads: 32,
    kv_heads: 4,
    vision_hidden: 1024,
    vision_inner: 4096,
    vision_layers: 24,
    vision_heads: 16,
    image: 336,
    patch: 14,
};
/// Prompt tokens of one step, as in the engine.
const CHUNK: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", dir] => random_llava::write(Path::new(dir), &GEOMETRY),
        ["run", dir, dtype, quantization, prompt, steps, repeats] => {
            let dtype = match dtype {
                "f32" => DType::F32,
                "f16" => DType::F16,
                "bf16" => DType::BF16,
                other => panic!("{other} is no number format"),
            };
            let precision = Precision { dtype, quantization: quantization.parse().unwrap(), ..Precision::F32 };
            let [prompt, steps, repeats] = [prompt, steps, repeats].map(|number| number.parse().unwrap());
            run(Path::new(dir), precision, prompt, steps, repeats);
        }
        // Run as all benches are: nothing to measure without a model.
        _ => println!("decode make DIR | decode run DIR DTYPE QUANTIZATION PROMPT STEPS REPEATS"),
    }
}

fn run(dir: &Path, precision: Precision, prompt: usize, steps: usize, repeats: usize) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let start = Instant::now();
    let model = VisionLanguage::load(&checkpoint, prompt + steps, precision).unwrap();
    let load = start.elapsed().as_secs_f64();
    let cache = model.kv_cache(room_for(1, prompt + steps)).unwrap();
    let embeds = Tensor::randn(0f32, 1.0, (prompt, GEOMETRY.hidden), &Device::Cpu).unwrap();
    let side = GEOMETRY.image;
    let picture = PreparedImage {
        tiles: 1,
        height: side,
        width: side,
        pixels: vec![0.1; 3 * side * side].into(),
        tokens: 0,
        kept: None,
        key: ImageKey::default(),
    };
    let (mut vision, mut prefills, mut decodes) = (Vec::new(), Vec::new(), Vec::new());
    for repeat in 0..=repeats {
        // Once cold, once to be counted: it takes longest and varies least.
        let seen = (repeat < 2).then(|| timed(|| drop(model.see(&picture).unwrap())));
        let prefill = timed(|| read(&model, &cache, &embeds));
        let decode = timed(|| write(&model, &cache, prompt, steps));
        // The first round only warms up.
        if repeat > 0 {
            vision.extend(seen);
            prefills.push(prompt as f64 / prefill);
            decodes.push(steps as f64 / decode);
        }
    }
    let weights = model.weights();
    let line = json!({
        "by": "ours",
        "dtype": precision.dtype.as_str(),
        "quantization": precision.quantization.name(),
        "threads": rayon::current_num_threads(),
        "prompt": prompt,
        "steps": steps,
        "prefill_per_second": median(prefills),
        "decode_per_second": median(decodes),
        "vision_seconds": median(vision),
        "load_seconds": load,
        "weight_bytes": weights.bytes,
        "bits_per_weight": weights.bits_per_weight(),
    });
    println!("{line}");
}

fn read(model: &VisionLanguage, cache: &KvCache, embeds: &Tensor) {
    let total = embeds.dim(0).unwrap();
    let blocks = nth_table(0, total);
    for start in (0..total).step_by(CHUNK) {
        let rows = CHUNK.min(total - start);
        let batch = Batch::new(&[Segment { blocks: &blocks, start, rows, long: false }]);
        let chunk = embeds.narrow(0, start, rows).unwrap().contiguous().unwrap();
        let hidden = model.language().forward(&chunk, &batch, cache).unwrap();
        if start + rows == total {
            model.language().logits(&hidden, batch.last_rows()).unwrap();
        }
    }
}

fn write(model: &VisionLanguage, cache: &KvCache, prompt: usize, steps: usize) {
    let blocks = nth_table(0, prompt + steps);
    for step in 0..steps {
        let batch = Batch::new(&[Segment { blocks: &blocks, start: prompt + step, rows: 1, long: false }]);
        let id = (step * 31 % GEOMETRY.vocabulary) as u32;
        let hidden = model.language().forward(&model.language().embed(&[id]).unwrap(), &batch, cache).unwrap();
        model.language().logits(&hidden, batch.last_rows()).unwrap().to_vec2::<f32>().unwrap();
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Speed of preprocessing on one processor core: `images.py` makes the pictures, measures the reference beside
//! this program and writes `results/images.md`. Prints one JSON object a line.
//!
//! `taskset -c 0 cargo bench --workspace --bench images -- DIR [FAMILY]` measures every `DIR/*.jpg`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vlm_catalog::architecture::{Dialect, Family, ModelConfig, Tiling, describe};
use vlm_runtime::image::{ImageKey, ImageLimits, Preprocessing, TileBudget};

/// Least time and fewest repeats of one measurement.
const LEAST: (Duration, usize) = (Duration::from_millis(700), 15);
const PINPOINTS: [(u32, u32); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(dir) = arguments.next().map(PathBuf::from) else {
        println!("name the directory of pictures that images.py made");
        return;
    };
    let only = arguments.next();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "jpg")) {
        let bytes = std::fs::read(path).unwrap();
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        let name = path.file_stem().unwrap().to_str().unwrap();
        line(name, "decode", "jpeg", timed(|| drop(image::load_from_memory(&bytes).unwrap().to_rgb8())));
        for (family, preprocessing) in families() {
            if only.as_ref().is_some_and(|only| only != family) {
                continue;
            }
            line(
                name,
                family,
                "pixels",
                timed(|| drop(preprocessing.cut(&image, TileBudget::default(), ImageKey::default()))),
            );
            let prepare = || preprocessing.prepare(&bytes, &ImageLimits::default(), TileBudget::default()).unwrap();
            line(name, family, "jpeg", timed(|| drop(prepare())));
        }
    }
}

fn families() -> Vec<(&'static str, Preprocessing)> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub/config.json");
    let config = describe(&serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap()).unwrap();
    let model = |family, tiling, image_size, shuffle| {
        let mut model = ModelConfig { family, dialect: Dialect::Transformers, tiling, ..config.clone() };
        (model.vision.image_size, model.vision.patch_size, model.vision.shuffle) = (image_size, 14, shuffle);
        Preprocessing::of(&model).unwrap()
    };
    let pinpoints = PINPOINTS.to_vec();
    let dynamic = Tiling::Dynamic { min: 1, max: 12, thumbnail: true };
    vec![
        ("llava-1.5 crop", model(Family::Llava, Tiling::One { pad: Some(false) }, 336, 1)),
        ("llava-1.5 pad", model(Family::Llava, Tiling::One { pad: Some(true) }, 336, 1)),
        ("llava-1.6", model(Family::LlavaNext, Tiling::AnyRes { pinpoints }, 336, 1)),
        ("internvl", model(Family::InternVl, dynamic, 448, 2)),
    ]
}

/// Middle of the repeats in milliseconds.
fn timed(mut run: impl FnMut()) -> f64 {
    run();
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < LEAST.0 || times.len() < LEAST.1 {
        let start = Instant::now();
        run();
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn line(picture: &str, family: &str, from: &str, milliseconds: f64) {
    let value = serde_json::json!({ "picture": picture, "family": family, "from": from, "ms": milliseconds });
    println!("{value}");
}

//! Speed of preprocessing on one processor core: `images.py` makes the pictures, measures the reference beside
//! this program and writes `results/images.md`. Prints one JSON object a line.
//!
//! `taskset -c 0 cargo bench -p vlm-runtime --bench images -- DIR` measures every `DIR/*.jpg`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vlm_catalog::architecture::{Dialect, Family, ModelConfig, Tiling, describe};
use vlm_runtime::image::{ImageLimits, Preprocessing, TileBudget};

/// Least time and fewest repeats of one measurement.
const LEAST: (Duration, usize) = (Duration::from_millis(1500), 15);
const PINPOINTS: [(u32, u32); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

fn main() {
    let Some(dir) = std::env::args().skip(1).find(|argument| argument != "--bench").map(PathBuf::from) else {
        println!("name the directory of pictures that images.py made");
        return;
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "jpg")) {
        let bytes = std::fs::read(path).unwrap();
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        let name = path.file_stem().unwrap().to_str().unwrap();
        line(name, "decode", "jpeg", timed(|| drop(image::load_from_memory(&bytes).unwrap().to_rgb8())));
        for (family, preprocessing) in families() {
            line(name, family, "pixels", timed(|| drop(preprocessing.cut(&image, TileBudget::default()))));
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

/// Middle of the repeats in milliseconds, by the clock and by what the processor spent on this thread.
fn timed(mut run: impl FnMut()) -> [f64; 2] {
    run();
    let begun = Instant::now();
    let mut times = [Vec::new(), Vec::new()];
    while begun.elapsed() < LEAST.0 || times[0].len() < LEAST.1 {
        let (start, spent) = (Instant::now(), processor_time());
        run();
        times[0].push(start.elapsed());
        times[1].push(processor_time().saturating_sub(spent));
    }
    times.map(|mut column| {
        column.sort();
        column[column.len() / 2].as_secs_f64() * 1e3
    })
}

/// From the kernel's scheduler, in nanoseconds.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn line(picture: &str, family: &str, from: &str, [clock, processor]: [f64; 2]) {
    let value = serde_json::json!({
        "picture": picture, "family": family, "from": from, "clock_ms": clock, "processor_ms": processor,
    });
    println!("{value}");
}

//! What hostile pictures may cost: memory, as the kernel counts it for the whole process. One test, because
//! tests that run beside it would be counted too.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use vlm_catalog::architecture::describe;
use vlm_runtime::image::{ImageLimits, Preprocessing, TileBudget};

/// Beyond what the pixels of a picture within the limits need.
const SLACK: u64 = 40 << 20;
const LIMITS: ImageLimits = ImageLimits { max_pixels: 1 << 20, max_bytes: 4 << 20 };
/// What a decoder may need for a picture of the most pixels.
const PIXELS: u64 = 16 << 20;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn preprocessing() -> Preprocessing {
    let config = std::fs::read(fixtures().join("llava15_llama_hub/config.json")).unwrap();
    Preprocessing::of(&describe(&serde_json::from_slice(&config).unwrap()).unwrap()).unwrap()
}

/// A line of `/proc/self/status` in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// How much memory `run` took at most, beyond what was there before.
fn peak(run: impl FnOnce()) -> u64 {
    let before = memory("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    run();
    memory("VmHWM:").saturating_sub(before)
}

/// Names and files that say they are large.
fn bombs() -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| std::fs::read(fixtures().join("pictures").join(name)).unwrap();
    let patched = |name: &str, patches: &[(usize, &[u8])]| {
        let mut bytes = read(name);
        for (at, patch) in patches {
            bytes[*at..][..patch.len()].copy_from_slice(patch);
        }
        bytes
    };
    let tag = |bytes: &[u8], tag: u16| {
        let at = u32::from_le_bytes(*bytes[4..].first_chunk().unwrap()) as usize;
        let count = usize::from(u16::from_le_bytes(*bytes[at..].first_chunk().unwrap()));
        let entries = (0..count).map(|i| at + 2 + 12 * i);
        entries.into_iter().find(|e| bytes[*e..e + 2] == tag.to_le_bytes()).unwrap()
    };
    let mut bombs: Vec<(String, Vec<u8>)> =
        ["text.png", "profile.png"].iter().map(|name| ((*name).to_owned(), read(&format!("bombs/{name}")))).collect();
    let mut add = |name: &str, bytes: Vec<u8>| bombs.push((name.to_owned(), bytes));
    add("GIF canvas", patched("still.gif", &[(6, &[255; 4])]));
    let gif = read("still.gif");
    let palette = 13 + (3 << (1 + (gif[10] & 7)));
    let frame = palette + gif[palette..].iter().position(|byte| *byte == b',').unwrap();
    add("GIF frame", patched("still.gif", &[(frame + 5, &[255; 4])]));
    add("BMP sizes", patched("rgb.bmp", &[(18, &[255, 255, 255, 127, 255, 255, 255, 127])]));
    add("BMP palette", patched("palette.bmp", &[(46, &[255; 4])]));
    add("WebP canvas", patched("lossless.webp", &[(21, &[255; 4])]));
    add("WebP animation", patched("animated.webp", &[(24, &[255; 6])]));
    let jpeg = read("rgb.jpg").windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    add("JPEG sizes", patched("rgb.jpg", &[(jpeg + 5, &[255; 4])]));
    let tiff = read("rgb.tif");
    for (name, number) in
        [("width", 256), ("bits", 258), ("offsets", 273), ("samples", 277), ("rows", 278), ("counts", 279)]
    {
        let entry = tag(&tiff, number);
        add(&format!("TIFF {name}, many values"), patched("rgb.tif", &[(entry + 4, &[255, 255, 255, 127])]));
        add(&format!("TIFF {name}, large value"), patched("rgb.tif", &[(entry + 8, &[255, 255, 255, 127])]));
    }
    bombs
}

#[test]
fn hostile_pictures_take_little_memory() {
    let preprocessing = preprocessing();
    let prepare = |bytes: &[u8]| preprocessing.prepare(bytes, &LIMITS, TileBudget::default());
    // What is allocated once and for all.
    prepare(&std::fs::read(fixtures().join("pictures/rgb.png")).unwrap()).unwrap();
    for (name, bytes) in bombs() {
        let mut refused = false;
        let peak = peak(|| refused = prepare(&bytes).is_err());
        assert!(peak < SLACK, "{name}: {} MiB", peak >> 20);
        // What does not concern the pixels may be passed over.
        assert!(refused || !(name.ends_with("canvas") || name.ends_with("sizes")), "{name}");
    }
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for entry in std::fs::read_dir(fixtures().join("pictures")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(original) = std::fs::read(&path) else { continue };
        for _ in 0..40 {
            let mut bytes = original.clone();
            (0..4).for_each(|_| bytes[random(original.len().min(400))] = random(256) as u8);
            let peak = peak(|| drop(prepare(&bytes)));
            assert!(peak < PIXELS + SLACK, "{}: {} MiB", path.display(), peak >> 20);
        }
    }
}

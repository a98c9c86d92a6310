//! What hostile checkpoints may cost: memory, as the kernel counts it for the whole process, and an error that is
//! a sentence. One test, because tests that run beside it would be counted too.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;

/// For a damaged file of some hundred kilobytes.
const SMALL: u64 = 40 << 20;
/// For the largest files that are read at all.
const LARGE: u64 = 400 << 20;
/// Damaged variants of each file.
const ROUNDS: usize = 700;
const SHARD: &str = "model-00003-of-00003.safetensors";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
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

/// Numbers that are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Up to four changes within the first and last `reach` bytes, where files say what they hold.
fn damage(bytes: &[u8], reach: usize, draw: &mut Draw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=draw.below(4) {
        let within = draw.below(reach.min(bytes.len()));
        let at = if draw.below(2) == 0 { within } else { bytes.len() - 1 - within };
        match draw.below(6) {
            0 => bytes[at] = draw.below(256) as u8,
            1 => bytes[at] ^= 1 << draw.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => drop(bytes.splice(at..at, std::iter::repeat_n(b'9', draw.below(9)))),
            4 => bytes[at] = b"0123456789-\"[]{},:"[draw.below(18)],
            _ => {
                let from = draw.below(bytes.len());
                let block = bytes[from..(from + draw.below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, block);
            }
        }
    }
    bytes
}

fn start(dir: &Path) -> Result<(), CheckpointError> {
    VisionLanguage::load(&Checkpoint::open(dir)?, 64, Precision::F32).map(drop)
}

/// The first checkpoint, without the weights of another kind than `weights`.
fn checkpoint(weights: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("llava15_llama_hub")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let other = name.contains("safetensors") && weights != "safetensors";
        if path.is_file() && !name.starts_with("expected") && !other {
            std::fs::copy(&path, dir.path().join(name)).unwrap();
        }
    }
    dir
}

/// Writes damaged variants of `file` and starts them; some must be refused, all of them cheaply.
fn fuzz(dir: &Path, file: &str, reach: usize) {
    let original = std::fs::read(dir.join(file)).unwrap();
    let (mut draw, mut refused) = (Draw(11), 0);
    for round in 0..ROUNDS {
        std::fs::remove_file(dir.join(file)).unwrap();
        std::fs::write(dir.join(file), damage(&original, reach, &mut draw)).unwrap();
        let mut result = Ok(());
        let peak = peak(|| result = start(dir));
        assert!(peak < SMALL, "{file}, round {round}: {} MiB", peak >> 20);
        if let Err(error) = result {
            refused += 1;
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 4000 && !text.ends_with('.'), "{file}, round {round}: {text}");
        }
    }
    assert!(refused > ROUNDS / 10, "{file}: only {refused} were refused");
    std::fs::write(dir.join(file), original).unwrap();
    start(dir).unwrap();
}

/// A header of `size` bytes that is `part` over and over, between its ends.
fn header(ends: [&str; 2], part: &str, size: usize) -> Vec<u8> {
    let json = [ends[0], &part.repeat(size / part.len()), ends[1]].concat();
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

/// Files near the largest that are read, each made of what takes most memory.
fn bombs(dir: &Path) {
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let numbers = format!("{}0]", "0,".repeat(2_000_000));
    let nested = format!("{}{}", "[".repeat(2_000_000), "]".repeat(2_000_000));
    let many = |entry: &str| format!("{{\"weight_map\": {{{}\"z\": \"z\"}}}}", entry.repeat(4_000_000 / entry.len()));
    let shapes = [r#"{"a":{"dtype":"U8","shape":["#, r#"0],"data_offsets":[0,0]}}"#];
    let entry = r#""":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"#;
    let last = r#""":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#;
    let cases: [(&str, Vec<u8>); 8] = [
        ("config.json", config.replacen('{', &format!("{{\"eos_token_id\": [{numbers},"), 1).into_bytes()),
        ("config.json", config.replacen('{', &format!("{{\"new\": {nested},"), 1).into_bytes()),
        ("config.json", config.replacen('{', &format!("{{\"new\": [{numbers},"), 1).into_bytes()),
        ("model.safetensors.index.json", many("\"a\": \"b\",").into_bytes()),
        (SHARD, header(shapes, "0,", 15 << 20)),
        (SHARD, header(["{", last], entry, 15 << 20)),
        (SHARD, header(["{\"", "\": 1}"], "x", 15 << 20)),
        (SHARD, (u64::MAX >> 1).to_le_bytes().to_vec()),
    ];
    for (file, bytes) in cases {
        let original = std::fs::read(dir.join(file)).unwrap();
        std::fs::remove_file(dir.join(file)).unwrap();
        std::fs::write(dir.join(file), bytes).unwrap();
        let mut result = Ok(());
        let peak = peak(|| result = start(dir));
        assert!(peak < LARGE, "{file}: {} MiB", peak >> 20);
        if let Err(error) = result {
            assert!(error.to_string().len() < 4000, "{file}: {} bytes of error", error.to_string().len());
        }
        std::fs::write(dir.join(file), original).unwrap();
    }
}

#[test]
fn hostile_checkpoints_take_little_memory_and_are_refused_in_words() {
    let dir = checkpoint("safetensors");
    // What is allocated once and for all.
    start(dir.path()).unwrap();
    for (file, reach) in [("config.json", 4000), ("model.safetensors.index.json", 8000), (SHARD, 3000)] {
        fuzz(dir.path(), file, reach);
    }
    bombs(dir.path());
    let dir = checkpoint("pickle");
    let pickle = fixtures().join("pickles/single/pytorch_model.bin");
    std::fs::copy(pickle, dir.path().join("pytorch_model.bin")).unwrap();
    fuzz(dir.path(), "pytorch_model.bin", 16_000);
}

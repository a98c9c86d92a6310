//! The reference cases, copies of them to be harmed, and the binary.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{Device, Tensor};
use serde_json::Value;
use tempfile::TempDir;

/// Every case.
pub const NAMES: [&str; 12] = [
    "llava15_llama_hub",
    "llava15_llama_v5names",
    "llava15_llama_orig",
    "llava_next_mistral_hub",
    "llava_next_llama_hub",
    "llava_next_llama_orig",
    "internvl3_qwen2_hub",
    "internvl3_qwen2_chat",
    "internvl2_internlm2_chat",
    "internvl2_llama_chat",
    "internvl2_phi3_short_chat",
    "internvl2_phi3_long_chat",
];
/// One of each way in which pictures are cut.
pub const FAMILIES: [&str; 4] =
    ["llava15_llama_v5names", "llava_next_mistral_hub", "internvl3_qwen2_chat", "internvl2_internlm2_chat"];

pub fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

/// The pictures of a case in order.
pub fn images(dir: &Path) -> Vec<PathBuf> {
    (0..99).map(|n| dir.join(format!("images/{n}.png"))).take_while(|path| path.exists()).collect()
}

/// A copy of a case that may be harmed.
pub fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(&dir(name), copy.path());
    copy
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_files(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

/// Changes the JSON of a file.
pub fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json(path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// What the binary did.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub error: String,
}

pub fn run<S: AsRef<OsStr>>(words: &[S]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_vlm-runtime")).args(words).output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn verify(dir: &Path, more: &[&str]) -> Ended {
    run(&[&["verify", dir.to_str().unwrap()], more].concat())
}

/// Runs `trace` on `prompt` and `images`.
pub fn trace(model: &Path, prompt: &str, images: &[PathBuf], tokens: usize) -> (TempDir, Ended) {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("prompt.txt");
    std::fs::write(&file, prompt).unwrap();
    let tokens = tokens.to_string();
    let mut words: Vec<&OsStr> = ["trace", "--dtype", "f32", "--max-tokens", &tokens].map(OsStr::new).to_vec();
    words.extend([OsStr::new("--model"), model.as_os_str(), OsStr::new("--prompt-file"), file.as_os_str()]);
    words.extend([OsStr::new("--out"), out.path().as_os_str()]);
    if !images.is_empty() {
        words.push(OsStr::new("--image"));
        words.extend(images.iter().map(|path| path.as_os_str()));
    }
    let ended = run(&words);
    (out, ended)
}

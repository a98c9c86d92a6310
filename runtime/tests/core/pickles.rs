//! Checkpoints whose weights torch pickled: the same numbers as in safetensors, in one file, in shards, and with
//! the vision tower in a folder of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError, OpenOptions};
use vlm_runtime::image::{ImageKey, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;

use crate::fixture::{Fixture, difference};
use crate::layouts::{logits, tensors, write};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn pickles() -> PathBuf {
    fixtures().join("pickles")
}

/// Everything but the weights of the first checkpoint, and the pickled file as its weights.
fn pickled(dir: &Path, file: &Path) {
    write(dir, &tensors());
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    std::fs::copy(file, dir.join("pytorch_model.bin")).unwrap();
}

#[test]
fn a_pickled_checkpoint_has_the_logits_of_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    pickled(dir.path(), &pickles().join("single/pytorch_model.bin"));
    let same = tempfile::tempdir().unwrap();
    let rounded = tensors().into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::BF16).unwrap()));
    write(same.path(), &rounded.collect());
    let pickled = Fixture::open_at(dir.path());
    assert!(difference(&logits(&pickled), &logits(&Fixture::open_at(same.path()))) == 0.0);
}

#[test]
fn every_pickled_tensor_is_the_one_that_torch_saved() {
    let dir = tempfile::tempdir().unwrap();
    pickled(dir.path(), &pickles().join("single/pytorch_model.bin"));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let expected = tensors();
    assert_eq!(checkpoint.weights().names().count(), expected.len());
    for (name, tensor) in expected {
        let stored = checkpoint.weights().tensor(&name, tensor.dims(), &Device::Cpu).unwrap();
        assert_eq!(stored.dtype(), DType::BF16);
        let tensor = tensor.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert!(difference(&stored.to_dtype(DType::F32).unwrap(), &tensor) == 0.0, "{name}");
    }
}

#[test]
fn safetensors_win_over_pickles() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tensors());
    std::fs::write(dir.path().join("pytorch_model.bin"), "not weights").unwrap();
    VisionLanguage::load(&Checkpoint::open(dir.path()).unwrap(), 8, Precision::F32).unwrap();
}

#[test]
fn a_pickled_file_that_is_not_read_is_refused_in_words() {
    let start = |file: &Path| -> CheckpointError {
        let dir = tempfile::tempdir().unwrap();
        pickled(dir.path(), file);
        Checkpoint::open(dir.path()).err().unwrap()
    };
    for entry in std::fs::read_dir(pickles().join("refused")).unwrap() {
        let path = entry.unwrap().path();
        let error = start(&path);
        let text = error.to_string();
        assert_eq!(error.cause(), Cause::UnsupportedArchitecture, "{text}");
        assert!(text.contains("pytorch_model.bin") && text.contains("supported: safetensors"), "{text}");
    }
    let single = std::fs::read(pickles().join("single/pytorch_model.bin")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for keep in [1, 100, 60_000, single.len() - 1] {
        std::fs::write(&file, &single[..keep]).unwrap();
        let error = start(&file);
        assert_eq!(error.cause(), Cause::WeightsCorrupt, "{error}");
        assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
    }
    std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
    assert!(start(&file).to_string().contains("git lfs pull"));
}

#[test]
fn sharded_pickles_follow_their_index() {
    let dir = tempfile::tempdir().unwrap();
    pickled(dir.path(), &pickles().join("single/pytorch_model.bin"));
    std::fs::rename(dir.path().join("pytorch_model.bin"), dir.path().join("a.bin")).unwrap();
    let map: serde_json::Map<_, _> = tensors().into_keys().map(|name| (name, "a.bin".into())).collect();
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        let json = serde_json::json!({ "weight_map": map });
        std::fs::write(dir.path().join("pytorch_model.bin.index.json"), json.to_string()).unwrap();
        Checkpoint::open(dir.path())
    };
    VisionLanguage::load(&index(&map).unwrap(), 8, Precision::F32).unwrap();
    let mut wrong = map.clone();
    wrong.insert("lm_head.bias".to_owned(), "a.bin".into());
    let error = index(&wrong).err().unwrap().to_string();
    assert!(error.contains("pytorch_model.bin.index.json") && error.contains("lm_head.bias"), "{error}");
    wrong.insert("lm_head.bias".to_owned(), "b.bin".into());
    let error = index(&wrong).err().unwrap();
    assert_eq!(error.cause(), Cause::ModelNotFound);
    assert!(error.to_string().contains("b.bin"), "{error}");
}

/// The original LLaVA-1.5 as it was published: pickled shards without the vision tower.
fn original(dir: &Path) {
    for (from, file) in [
        ("llava15_llama_orig", "config.json"),
        ("llava15_llama_orig", "tokenizer.json"),
        ("pickles/sharded", "pytorch_model.bin.index.json"),
        ("pickles/sharded", "pytorch_model-00001-of-00002.bin"),
        ("pickles/sharded", "pytorch_model-00002-of-00002.bin"),
    ] {
        std::fs::copy(fixtures().join(from).join(file), dir.join(file)).unwrap();
    }
}

fn tower(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for file in ["config.json", "pytorch_model.bin"] {
        std::fs::copy(pickles().join("clip").join(file), dir.join(file)).unwrap();
    }
}

fn load(dir: &Path, vision_tower: Option<&Path>) -> Result<VisionLanguage, CheckpointError> {
    let options = OpenOptions { vision_tower: vision_tower.map(Path::to_owned), progress: None };
    VisionLanguage::load(&Checkpoint::open_with(dir, &options)?, 300, Precision::F32)
}

/// What a picture of one colour ramp becomes.
fn seen(model: &VisionLanguage) -> Tensor {
    let side = model.config().vision.image_size;
    let pixels: Vec<f32> = (0..3 * side * side).map(|n| (n % 97) as f32 / 48.0 - 1.0).collect();
    let key = ImageKey::of_pixels(&pixels);
    model
        .see(&PreparedImage { tiles: 1, height: side, width: side, pixels: pixels.into(), tokens: 16, kept: None, key })
        .unwrap()
}

#[test]
fn the_tower_of_the_original_llava_is_found_in_its_own_folder() {
    // The same numbers in one file, tower included.
    let whole = tempfile::tempdir().unwrap();
    original(whole.path());
    for file in std::fs::read_dir(pickles().join("sharded")).unwrap() {
        std::fs::remove_file(whole.path().join(file.unwrap().file_name())).unwrap();
    }
    let all = candle_core::safetensors::load(fixtures().join("llava15_llama_orig/model.safetensors"), &Device::Cpu);
    let half = all.unwrap().into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F16).unwrap()));
    let half: HashMap<String, Tensor> = half.collect();
    candle_core::safetensors::save(&half, whole.path().join("model.safetensors")).unwrap();
    let expected = seen(&load(whole.path(), None).unwrap());

    let models = tempfile::tempdir().unwrap();
    let dir = models.path().join("llava");
    std::fs::create_dir(&dir).unwrap();
    original(&dir);
    let name = "clip-vit-large-patch14-336";
    for folder in [dir.join(name), dir.join("vision_tower"), models.path().join(name)] {
        tower(&folder);
        assert!(difference(&seen(&load(&dir, None).unwrap()), &expected) == 0.0, "{}", folder.display());
        std::fs::remove_dir_all(folder).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    tower(elsewhere.path());
    assert!(difference(&seen(&load(&dir, Some(elsewhere.path())).unwrap()), &expected) == 0.0);
    std::fs::remove_file(elsewhere.path().join("config.json")).unwrap();
    assert!(difference(&seen(&load(&dir, Some(elsewhere.path())).unwrap()), &expected) == 0.0);

    let error = load(whole.path(), Some(elsewhere.path())).err().unwrap();
    assert_eq!(error.cause(), Cause::InvalidArguments);
    assert!(error.to_string().contains("--vision-tower"), "{error}");
}

#[test]
fn a_missing_tower_is_told_with_its_name_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    original(dir.path());
    let error = load(dir.path(), None).err().unwrap();
    assert_eq!(error.cause(), Cause::ModelNotFound);
    let place = dir.path().join("clip-vit-large-patch14-336").display().to_string();
    for word in ["openai/clip-vit-large-patch14-336", "--vision-tower", "vision_tower", &place] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let nowhere = load(dir.path(), Some(Path::new("/nonexistent/clip"))).err().unwrap();
    assert_eq!((nowhere.cause(), nowhere.to_string().contains("/nonexistent/clip")), (Cause::ModelNotFound, true));
    let other = load(dir.path(), Some(dir.path())).err().unwrap();
    assert_eq!(other.cause(), Cause::UnsupportedArchitecture);
    assert!(other.to_string().contains("no CLIP vision tower"), "{other}");
}

//! Checkpoints whose weights torch pickled: the same numbers as in safetensors, in one file, in shards, and with
//! the vision tower in a folder of its own.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;

use crate::fixture::{Fixture, difference};
use crate::layouts::{logits, tensors, write};

pub fn pickles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pickles")
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

//! Checkpoints with something missing or wrong: the right cause, and a sentence that names it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::engine::{Engine, EngineOptions};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::Processor;

use crate::fixture;
use crate::layouts::{tensors, write};

/// Copies the fixture, lets `harm` do something to it, and gives what the start says.
fn after(harm: impl FnOnce(&Path)) -> CheckpointError {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture::dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    harm(dir.path());
    start(dir.path()).expect_err("a broken checkpoint starts")
}

fn start(dir: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(dir)?;
    Processor::open(&checkpoint)?;
    VisionLanguage::load(&checkpoint, 64, Precision::F32)?;
    Ok(())
}

fn assert_says(error: &CheckpointError, cause: Cause, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.cause(), cause, "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    assert!(!text.ends_with('.'));
}

const SHARD: &str = "model-00002-of-00003.safetensors";

#[test]
fn missing_files_are_not_found() {
    let nowhere = start(Path::new("/nonexistent/model")).unwrap_err();
    assert_says(&nowhere, Cause::ModelNotFound, &["/nonexistent/model"]);
    for file in ["config.json", "tokenizer.json", SHARD] {
        let error = after(|dir| std::fs::remove_file(dir.join(file)).unwrap());
        assert_says(&error, Cause::ModelNotFound, &[file]);
    }
    let error = after(|dir| std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap());
    assert_says(&error, Cause::ModelNotFound, &["model.safetensors"]);
}

#[test]
fn truncated_and_garbled_files_are_corrupt() {
    for keep in [0, 4, 100, 60_000] {
        let error = after(|dir| {
            let bytes = std::fs::read(dir.join(SHARD)).unwrap();
            std::fs::write(dir.join(SHARD), &bytes[..keep]).unwrap();
        });
        assert_says(&error, Cause::WeightsCorrupt, &[SHARD]);
    }
    let error = after(|dir| std::fs::write(dir.join(SHARD), [0xFF; 64]).unwrap());
    assert_says(&error, Cause::WeightsCorrupt, &[SHARD]);
    for file in ["config.json", "tokenizer.json", "model.safetensors.index.json", "preprocessor_config.json"] {
        let error = after(|dir| std::fs::write(dir.join(file), b"{\"a\": ").unwrap());
        assert_says(&error, Cause::WeightsCorrupt, &[file]);
    }
}

#[test]
fn an_index_does_not_lead_out_of_the_checkpoint() {
    for file in ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""] {
        let error = after(|dir| {
            let index = serde_json::json!({"weight_map": {"language_model.lm_head.weight": file}});
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        });
        assert_says(&error, Cause::WeightsCorrupt, &["language_model.lm_head.weight", file]);
    }
}

#[test]
fn missing_and_misshaped_tensors_are_named() {
    let name = "language_model.model.layers.1.mlp.up_proj.weight";
    let harmed = |tensor: Option<Tensor>| {
        after(|dir| {
            let mut all = tensors();
            all.remove(name);
            all.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
            std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
            write(dir, &all);
        })
    };
    assert_says(&harmed(None), Cause::WeightsCorrupt, &[name]);
    let shape = Tensor::zeros((112, 63), DType::F32, &Device::Cpu).unwrap();
    assert_says(&harmed(Some(shape)), Cause::WeightsCorrupt, &[name, "[112, 64]", "[112, 63]"]);
    let integers = Tensor::zeros((112, 64), DType::I64, &Device::Cpu).unwrap();
    assert_says(&harmed(Some(integers)), Cause::UnsupportedArchitecture, &[name, "I64"]);
}

#[test]
fn weights_that_compute_nonsense_do_not_start() {
    for name in ["language_model.model.layers.0.mlp.down_proj.weight", "multi_modal_projector.linear_2.weight"] {
        let dir = tempfile::tempdir().unwrap();
        let mut all = tensors();
        let broken = all[name].affine(f64::INFINITY, 0.0).unwrap();
        all.insert(name.to_owned(), broken);
        write(dir.path(), &all);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let options = EngineOptions {
            max_tokens: 64,
            max_concurrency: 2,
            max_queue: 1,
            kv_bytes: None,
            precision: Precision::F32,
        };
        let Err(error) = Engine::start(&checkpoint, options) else { panic!("{name} was accepted") };
        assert_says(&error, Cause::WeightsCorrupt, &["finite"]);
    }
}

#[test]
fn other_models_and_hostile_numbers_are_unsupported() {
    let with = |pointer: &str, value: serde_json::Value| {
        after(|dir| {
            let path = dir.join("config.json");
            let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            *json.pointer_mut(pointer).unwrap() = value;
            std::fs::write(path, json.to_string()).unwrap();
        })
    };
    let other = with("/architectures/0", "Qwen2VLForConditionalGeneration".into());
    assert_says(&other, Cause::UnsupportedArchitecture, &["Qwen2VLForConditionalGeneration", "supported"]);
    let zero = with("/text_config/num_attention_heads", 0.into());
    assert_says(&zero, Cause::UnsupportedArchitecture, &["num_attention_heads", "0"]);
    let image = with("/image_token_index", 319.into());
    assert_says(&image, Cause::UnsupportedArchitecture, &["image_token_index"]);
    let unknown = after(|dir| {
        std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
        let renamed = tensors().into_iter().map(|(k, v)| (k.replace("multi_modal_projector", "connector"), v));
        write(dir, &renamed.collect());
    });
    assert_says(&unknown, Cause::UnsupportedArchitecture, &["layout", "mlp1.0.weight"]);
}

#[test]
fn options_that_do_not_fit_the_model_are_refused() {
    let checkpoint = Checkpoint::open(&fixture::dir()).unwrap();
    let base =
        EngineOptions { max_tokens: 64, max_concurrency: 2, max_queue: 1, kv_bytes: None, precision: Precision::F32 };
    for (options, word) in [
        (EngineOptions { max_tokens: 1025, ..base }, "1024"),
        (EngineOptions { max_concurrency: 0, ..base }, "at least 1"),
        (EngineOptions { max_concurrency: usize::MAX, ..base }, "KV cache"),
        (EngineOptions { kv_bytes: Some(100), ..base }, "100 bytes"),
    ] {
        let Err(error) = Engine::start(&checkpoint, options) else { panic!("{options:?} was accepted") };
        assert_says(&error, Cause::InvalidArguments, &[word]);
    }
    let sequence = checkpoint.config().text.kv_bytes_per_token(4) * 64;
    let engine =
        Engine::start(&checkpoint, EngineOptions { max_concurrency: 8, kv_bytes: Some(sequence * 3 + 1), ..base })
            .unwrap();
    assert_eq!(engine.snapshot().capacity, 3);
}

//! Checkpoints with something missing or wrong: the right cause, and a sentence that names it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions};
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
    assert_says(&harmed(None), Cause::WeightsCorrupt, &[name, "[112, 64]"]);
    let shape = Tensor::zeros((112, 63), DType::F32, &Device::Cpu).unwrap();
    assert_says(&harmed(Some(shape)), Cause::WeightsCorrupt, &[name, "[112, 64]", "[112, 63]"]);
    let integers = Tensor::zeros((112, 64), DType::I64, &Device::Cpu).unwrap();
    assert_says(&harmed(Some(integers)), Cause::UnsupportedArchitecture, &[name, "I64"]);
}

#[test]
fn tensors_of_another_model_are_named_and_harmless_ones_are_not() {
    let with = |extra: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut all = tensors();
        for name in extra {
            all.insert((*name).to_owned(), Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap());
        }
        write(dir.path(), &all);
        start(dir.path())
    };
    let harmless = [
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.vision_model.embeddings.position_ids",
        "vision_tower.vision_model.post_layernorm.other",
        "vision_tower.vision_model.encoder.layers.2.mlp.fc3.weight",
    ];
    with(&harmless).unwrap();
    for name in [
        "language_model.model.layers.2.mlp.up_proj.weight",
        "language_model.model.layers.0.self_attn.q_proj.bias",
        "vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight",
        "vision_tower.vision_model.encoder.layers.1.mlp.fc3.weight",
        "image_newline",
        "position_ids",
    ] {
        assert_says(&with(&[name]).unwrap_err(), Cause::WeightsCorrupt, &[name, "[2, 3]", "config.json"]);
    }
    let error = with(&["b", "a", "c"]).unwrap_err();
    assert_says(&error, Cause::WeightsCorrupt, &["the tensor a ", "2 others"]);
}

#[test]
fn an_index_says_what_is_true() {
    let with = |index: &str| after(|dir| std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap());
    let index = std::fs::read_to_string(fixture::dir().join("model.safetensors.index.json")).unwrap();
    let name = "vision_tower.vision_model.post_layernorm.bias";
    let file = "model-00003-of-00003.safetensors";
    let entry = format!("\"{name}\": \"{file}\"");
    assert!(index.contains(&entry));
    let elsewhere = with(&index.replace(&entry, &format!("\"{name}\": \"{SHARD}\"")));
    assert_says(&elsewhere, Cause::WeightsCorrupt, &[name, SHARD, "model.safetensors.index.json"]);
    let nowhere = with(&index.replace(&entry, &format!("{entry}, \"{name}s\": \"{file}\"")));
    assert_says(&nowhere, Cause::WeightsCorrupt, &[&format!("{name}s"), file]);
    let twice = with(&index.replace(&entry, &format!("{entry}, \"{name}\": \"{SHARD}\"")));
    assert_says(&twice, Cause::WeightsCorrupt, &[name, "twice", file, SHARD]);
    assert_says(&with(r#"{"weight_map": {}}"#), Cause::WeightsCorrupt, &["model.safetensors.index.json", "no tensors"]);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let error = after(|dir| {
        let path = dir.join("model-00003-of-00003.safetensors");
        let mut shard = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        shard.insert("language_model.lm_head.weight".to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        candle_core::safetensors::save(&shard, path).unwrap();
    });
    assert_says(&error, Cause::WeightsCorrupt, &["language_model.lm_head.weight", "00001", "00003"]);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    for file in ["config.json", "model.safetensors.index.json", SHARD] {
        let error = after(|dir| {
            std::fs::remove_file(dir.join(file)).unwrap();
            std::fs::create_dir(dir.join(file)).unwrap();
        });
        assert_says(&error, Cause::WeightsCorrupt, &[file, "regular file"]);
    }
    let error = after(|dir| {
        std::fs::remove_file(dir.join("config.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.join("config.json")).unwrap();
    });
    assert_says(&error, Cause::WeightsCorrupt, &["config.json", "regular file"]);
    let error = after(|dir| std::fs::File::create(dir.join("config.json")).unwrap().set_len(1 << 40).unwrap());
    assert_says(&error, Cause::WeightsCorrupt, &["config.json", "bytes"]);
    let file = fixture::dir().join("config.json");
    assert_says(&start(&file).unwrap_err(), Cause::ModelNotFound, &["config.json"]);
}

#[test]
fn a_header_that_does_not_fit_its_file_is_said_in_numbers() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        after(|dir| {
            let mut bytes = std::fs::read(dir.join(SHARD)).unwrap();
            change(&mut bytes);
            std::fs::write(dir.join(SHARD), bytes).unwrap();
        })
    };
    let size = std::fs::metadata(fixture::dir().join(SHARD)).unwrap().len();
    let length = |length: u64| with(&move |bytes| bytes[..8].copy_from_slice(&length.to_le_bytes()));
    let too_long = length(u64::MAX);
    assert_says(&too_long, Cause::WeightsCorrupt, &[SHARD, &u64::MAX.to_string(), &(size - 8).to_string()]);
    assert_says(&length(5), Cause::WeightsCorrupt, &[SHARD, "header"]);
    assert_says(&with(&|bytes| bytes.truncate(3)), Cause::WeightsCorrupt, &[SHARD, "3 bytes"]);
    assert_says(&with(&|bytes| bytes.extend([0; 5])), Cause::WeightsCorrupt, &[SHARD, "describes"]);
    assert_says(&with(&|bytes| bytes.truncate(size as usize - 5)), Cause::WeightsCorrupt, &[SHARD, "cut short"]);
    let twice = with(&|bytes| {
        let json = br#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
        *bytes = [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat();
    });
    assert_says(&twice, Cause::WeightsCorrupt, &["the tensor a ", "twice"]);
    let dtype = with(&|bytes| {
        let json = br#"{"a":{"dtype":"Q4","shape":[0],"data_offsets":[0,0]}}"#;
        *bytes = [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat();
    });
    assert_says(&dtype, Cause::WeightsCorrupt, &[SHARD, "Q4"]);
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
            encoder_cache_bytes: ENCODER_CACHE_BYTES,
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
    let base = EngineOptions {
        max_tokens: 65,
        max_concurrency: 2,
        max_queue: 1,
        kv_bytes: None,
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision: Precision::F32,
    };
    // Three blocks of 32 tokens, and one that no sequence owns.
    let least = checkpoint.config().text.kv_bytes_per_token(4) * 32 * 4;
    for (options, word) in [
        (EngineOptions { max_tokens: 1025, ..base }, "1024"),
        (EngineOptions { max_concurrency: 0, ..base }, "at least 1"),
        (EngineOptions { max_concurrency: usize::MAX, ..base }, "KV cache"),
        (EngineOptions { kv_bytes: Some(100), ..base }, "100 bytes"),
        (EngineOptions { kv_bytes: Some(least - 1), ..base }, &format!("at least {least}")),
        (EngineOptions { kv_bytes: Some(u64::MAX), ..base }, "set fewer"),
    ] {
        let Err(error) = Engine::start(&checkpoint, options) else { panic!("{options:?} was accepted") };
        assert_says(&error, Cause::InvalidArguments, &[word]);
    }
    Engine::start(&checkpoint, EngineOptions { kv_bytes: Some(least), ..base }).unwrap();
}

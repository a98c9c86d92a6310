//! Starts that fail: exit code, one sentence, and the diagnosis in the termination log.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vlm_contract::diagnosis::{Cause, Diagnosis};

use super::loading::{GEOMETRY, random};
use super::random_llava::Geometry;
use super::server::{PATIENCE, Server, checkpoint, command};

/// A copy of the checkpoint's files.
fn copy() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(checkpoint()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            // Not `fs::copy`, which would copy that the files are read-only.
            let bytes = std::fs::read(entry.path()).unwrap();
            std::fs::write(directory.path().join(entry.file_name()), bytes).unwrap();
        }
    }
    directory
}

/// Runs a start that has to fail and gives its message.
fn fails(model: &Path, words: &[&str], cause: Cause) -> String {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("termination-log");
    let mut all = vec!["serve", "--model", model.to_str().unwrap(), "--host", "127.0.0.1"];
    all.extend(["--termination-log", log.to_str().unwrap()]);
    all.extend(if words.contains(&"--port") { &[][..] } else { &["--port", "0"][..] });
    all.extend(words);
    let mut child = command(&all).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not fail");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(cause.exit_code())), "{complaint}");
    let diagnosis: Diagnosis = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert_eq!(diagnosis.reason, cause, "{complaint}");
    assert_eq!(complaint, format!("{diagnosis}\n"), "one sentence, the same in both places");
    diagnosis.message
}

#[test]
fn a_directory_that_does_not_exist_is_model_not_found() {
    let message = fails(Path::new("/nonexistent/model"), &[], Cause::ModelNotFound);
    assert!(message.contains("/nonexistent/model"), "{message}");
}

#[test]
fn a_missing_file_is_model_not_found() {
    for name in ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors"] {
        let model = copy();
        std::fs::remove_file(model.path().join(name)).unwrap();
        let message = fails(model.path(), &[], Cause::ModelNotFound);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn damaged_weights_are_weights_corrupt() {
    let name = "model-00001-of-00003.safetensors";
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    let empty: fn(&mut Vec<u8>) = Vec::clear;
    let garbled: fn(&mut Vec<u8>) = |bytes| bytes[..64].fill(0xff);
    for damage in [cut, empty, garbled] {
        let model = copy();
        let path = model.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let message = fails(model.path(), &[], Cause::WeightsCorrupt);
        assert!(message.contains(name), "{message}");
    }
}

/// Every number is sound, but nothing that is computed with them is: only a step shows it, and none may be a client's.
#[test]
fn weights_that_compute_nonsense_are_found_before_anyone_is_told_to_come() {
    for damaged in ["language_model.lm_head.weight", "multi_modal_projector.linear_2.weight"] {
        let model = copy();
        let mut found = false;
        for number in 1..=3 {
            let path = model.path().join(format!("model-{number:05}-of-00003.safetensors"));
            let mut tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
            if let Some(tensor) = tensors.get_mut(damaged) {
                *tensor = (tensor.ones_like().unwrap() * 3e38).unwrap();
                found = true;
            }
            candle_core::safetensors::save(&tensors, &path).unwrap();
        }
        assert!(found, "{damaged}");
        let message = fails(model.path(), &[], Cause::WeightsCorrupt);
        assert!(message.contains("finite"), "{message}");
    }
}

/// A model large enough that somebody would see it if it were told to be ready before its first step.
#[tokio::test]
async fn a_server_whose_first_step_is_nonsense_is_never_ready() {
    let model = random(&Geometry { layers: 4, ..GEOMETRY });
    let path = model.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let last = tensors.get_mut("language_model.lm_head.weight").unwrap();
    *last = (last.ones_like().unwrap() * 3e38).unwrap();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let mut server = Server::begin(model.path(), &["--max-tokens", "256"], &[]);
    let mut asked = 0;
    while let Ok(ready) = server.client.get(format!("{}/ready", server.base)).send().await {
        assert_eq!(ready.status(), 503, "after {asked} others: {}", server.log());
        asked += 1;
    }
    assert!(asked > 0, "{}", server.log());
    assert_eq!(server.ended().await.code(), Some(i32::from(Cause::WeightsCorrupt.exit_code())), "{}", server.log());
}

#[test]
fn another_architecture_is_unsupported() {
    let model = copy();
    let config = r#"{"model_type": "bert", "architectures": ["BertModel"]}"#;
    std::fs::write(model.path().join("config.json"), config).unwrap();
    let message = fails(model.path(), &[], Cause::UnsupportedArchitecture);
    assert!(message.to_lowercase().contains("bert"), "{message}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = fails(&checkpoint(), &["--port", &port], Cause::StartFailed);
    assert!(message.contains(&port), "{message}");
}

#[test]
fn wrong_flags_are_invalid_arguments() {
    let model = checkpoint();
    let message = fails(&model, &["--max-concurrency", "0"], Cause::InvalidArguments);
    assert!(message.contains("--max-concurrency"), "{message}");
    let message = fails(&model, &["--frobnicate"], Cause::InvalidArguments);
    assert!(message.contains("--frobnicate"), "{message}");
    let message = fails(&model, &["--max-tokens", "1000000"], Cause::InvalidArguments);
    assert!(message.contains("--max-tokens") && message.contains("1024"), "{message}");
    let output = command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
    assert_eq!(command(&["--help"]).output().unwrap().status.code(), Some(0));
}

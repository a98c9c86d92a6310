//! A plan of the whole: from manifest and checkpoint to text and JSON.

use std::path::PathBuf;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::args::{Cli, Command};

/// A directory with the `config.json` of a real model, and a manifest.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(model: &str, spec: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../catalog/tests/models");
        std::fs::copy(models.join(format!("{model}.json")), dir.path().join("config.json")).unwrap();
        std::fs::write(dir.path().join("README.md"), "---\nlicense: llama2\n---\n").unwrap();
        let manifest = format!(
            "apiVersion: vlm-operator.dev/v1alpha1\nkind: VisionModel\nmetadata: {{name: vision}}\nspec:\n  model: {{uri: 'hf://a/{model}'}}\n{spec}"
        );
        std::fs::write(dir.path().join("model.yaml"), manifest).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, more: &[&str]) -> anyhow::Result<(String, bool)> {
        let (manifest, dir) = (self.path("model.yaml"), self.dir.path().to_owned());
        let line = ["kubectl-vlm", "plan", "-f", manifest.to_str().unwrap(), "--checkpoint", dir.to_str().unwrap()];
        match Cli::try_parse_from(line.iter().chain(more)).unwrap().command {
            Command::Plan(args) => {
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(super::run(&args))
            }
            other => panic!("{other:?}"),
        }
    }

    fn json(&self, more: &[&str]) -> Value {
        let (text, _) = self.run(&[more, &["-o", "json"]].concat()).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }
}

#[test]
fn a_model_that_fits_is_planned_with_everything_a_person_asks() {
    let case = Case::new("llava-1.5-13b-hf", "  quantization: int4\n  gpu: {type: nvidia-l4}\n");
    let (text, fits) = case.run(&["--images-per-day", "100000", "--tokens", "500", "--hardware-usd", "8000"]).unwrap();
    assert!(fits);
    for part in [
        "hf://a/llava-1.5-13b-hf",
        "13.35 billion",
        "llama2",
        "it fits",
        "int4",
        "vision tower",
        "nvidia-l4",
        "nvidia-b200 (untested)",
        "0.80 USD an hour",
        "AWS g6.xlarge",
        "USD for a million",
        "100000 pictures a day",
        "cloud API",
        "pays from",
        "after",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    assert!(text.lines().all(|line| line.len() < 260), "{text}");
}

#[test]
fn a_model_that_does_not_fit_says_what_would() {
    let case = Case::new("llava-1.5-13b-hf", "  quantization: none\n  gpu: {type: nvidia-l4}\n");
    let (text, fits) = case.run(&[]).unwrap();
    assert!(!fits);
    assert!(text.contains("it does not fit") && text.contains("quantization: int8"), "{text}");
    let json = case.json(&[]);
    assert_eq!(json["fit"]["verdict"], "DoesNotFit");
    assert!(json["fit"]["suggestion"].as_str().unwrap().contains("gpu.type: "), "{json}");
    assert!(json["cost"].is_null() && json["fit"]["kvBytes"] == 0);
}

#[test]
fn the_numbers_of_the_json_agree_with_each_other() {
    let case =
        Case::new("InternVL3-8B", "  gpu: {type: nvidia-h100}\n  context: {maxTokens: 8192, maxConcurrency: 32}\n");
    let json = case.json(&["--images-per-day", "1000000"]);
    let (fit, parts) = (&json["fit"], &json["fit"]["breakdown"]);
    let sum: u64 = ["embedding", "decoder", "head", "tower", "projector", "image", "workspace", "context", "kv"]
        .map(|part| parts[format!("{part}Bytes")].as_u64().unwrap())
        .iter()
        .sum();
    assert_eq!(fit["requiredBytes"], sum);
    assert_eq!((fit["maxTokens"].as_u64(), fit["maxConcurrency"].as_u64()), (Some(8192), Some(32)));
    let cost = &json["cost"];
    let number = |value: &Value| value.as_f64().unwrap();
    let rate = number(&cost["rate"]["tokensPerSecond"]);
    assert!((number(&cost["usdPerMillionTokens"]) - 6.88 / 3600.0 / rate * 1e6).abs() < 1e-9);
    let api = &cost["againstApi"];
    assert!((number(&api["apiUsdPerDay"]) - 1_000_000.0 * (829.0 * 2.5 + 500.0 * 10.0) / 1e6).abs() < 1e-6);
    let replicas = (1_000_000.0 * 500.0 / (rate * 86_400.0)).ceil();
    assert!(replicas > 1.0);
    assert!((number(&api["usdPerDay"]) - replicas * 24.0 * 6.88).abs() < 1e-6);
    assert!((number(&api["savedUsdPerDay"]) - (number(&api["apiUsdPerDay"]) - number(&api["usdPerDay"]))).abs() < 1e-6);
}

#[test]
fn a_measured_rate_takes_the_place_of_the_estimate() {
    let case = Case::new("InternVL3-8B", "  gpu: {type: nvidia-l4}\n");
    let json = case.json(&["--tokens-per-second", "1000"]);
    assert_eq!(json["cost"]["rate"]["measured"], true);
    assert!((json["cost"]["usdPerMillionTokens"].as_f64().unwrap() - 0.8048 / 3.6).abs() < 1e-9);
}

#[test]
fn estimates_are_below_what_the_memory_allows_and_in_its_order() {
    // An H200 reads 7B in 16 bit at most 353 times a second, and 8004 tokens of 64 sequences.
    let case = Case::new(
        "llava-1.5-7b-hf",
        "  gpu: {type: nvidia-h200}\n  quantization: none\n  context: {maxConcurrency: 64}\n",
    );
    let rate = case.json(&["--tokens", "128"])["cost"]["rate"]["tokensPerSecond"].as_f64().unwrap();
    assert!((1500.0..8004.0).contains(&rate), "{rate}");
    let case = Case::new(
        "llava-1.5-7b-hf",
        "  gpu: {type: nvidia-h200}\n  quantization: none\n  context: {maxConcurrency: 1}\n",
    );
    let rate = case.json(&["--tokens", "100000"])["cost"]["rate"]["tokensPerSecond"].as_f64().unwrap();
    assert!((50.0..353.0).contains(&rate), "{rate}");
}

#[test]
fn without_a_gpu_the_limit_of_the_container_decides() {
    let spec = "  quantization: auto\n  pod: {resources: {limits: {memory: 4Gi}}}\n";
    let json = Case::new("InternVL2-1B", spec).json(&[]);
    assert_eq!((json["fit"]["verdict"].as_str(), json["gpuType"].as_str()), (Some("Fits"), None));
    let json = Case::new("InternVL3-8B", spec).json(&[]);
    assert!(json["fit"]["suggestion"].as_str().unwrap().contains("a memory limit of"), "{json}");
    let json = Case::new("InternVL3-8B", "").json(&[]);
    assert_eq!(json["fit"]["verdict"], "NoLimit");
}

#[test]
fn own_gpu_types_and_mistakes_are_heeded() {
    let case = Case::new("InternVL2-1B", "  gpu: {type: mine}\n");
    let error = format!("{:#}", case.run(&[]).unwrap_err());
    assert!(error.contains("vision: the GPU type \"mine\" is not in the catalogue"), "{error}");
    std::fs::write(case.path("gpus.yaml"), "mine: {memoryBytes: 8589934592, computeCapability: '8.6'}").unwrap();
    let gpus = case.path("gpus.yaml");
    let own = ["--gpu-types", gpus.to_str().unwrap()];
    let json = case.json(&own);
    assert_eq!((json["fit"]["verdict"].as_str(), json["gpuTypes"].as_array().unwrap().len()), (Some("Fits"), 1));
    assert!(json["cost"].is_null(), "no price is known");
    std::fs::write(&gpus, "mine: {memoryBytes: 1, computeCapability: '8.6'}").unwrap();
    assert!(format!("{:#}", case.run(&own).unwrap_err()).contains("memoryBytes is 1"));
    let case = Case::new("llava-1.5-7b-hf", "  context: {maxTokens: 9000}\n");
    assert!(format!("{:#}", case.run(&[]).unwrap_err()).contains("at most 4096 tokens"));
}

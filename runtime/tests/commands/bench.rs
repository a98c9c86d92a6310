//! `bench`: from a description of a model alone, in each way in which requests are sent.

use std::path::Path;

use serde_json::Value;

use crate::case::{Ended, dir, json, run};

/// A folder with the description of a case and nothing else.
fn described(case: &str) -> tempfile::TempDir {
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(dir(case).join("config.json"), alone.path().join("config.json")).unwrap();
    alone
}

fn bench(model: &Path, words: &[&str]) -> (Ended, Value) {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("results.json");
    let model = model.to_str().unwrap();
    let always = ["bench", "--model", model, "--device", "cpu", "--json", file.to_str().unwrap()];
    let ended = run(&[&always, words].concat());
    let results = if ended.code == 0 { json(&file) } else { Value::Null };
    (ended, results)
}

fn number(results: &Value, path: &str) -> f64 {
    results.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {results}"))
}

#[test]
fn a_batch_is_measured_against_what_memory_allows() {
    let model = described("llava15_llama_hub");
    let words =
        ["--dummy-weights", "--batch", "2", "--requests", "4", "--output-tokens", "16", "--quantization", "int8"];
    let (ended, results) = bench(model.path(), &words);
    assert_eq!(ended.code, 0, "{}", ended.error);
    let decode = number(&results, "/decode/tokens_per_second");
    let limit = number(&results, "/decode/limit_tokens_per_second");
    let percent = number(&results, "/decode/percent_of_limit");
    assert!(decode > 0.0 && (percent - 100.0 * decode / limit).abs() < 1e-6, "{results}");
    assert_eq!(number(&results, "/requests").to_bits(), 4f64.to_bits());
    assert!(number(&results, "/read_bytes_per_second") > 1e8);
    assert!(number(&results, "/memory/weights_bytes") <= number(&results, "/memory/predicted_weights_bytes"));
    assert!(number(&results, "/first_token_ms/p50") <= number(&results, "/first_token_ms/p99"));
    assert!(ended.out.contains("% of the") && ended.out.contains("random weights"), "{}", ended.out);
    assert!(ended.error.contains("4 of 4 requests answered"), "{}", ended.error);
}

#[test]
fn every_way_of_sending_answers_all_requests() {
    let model = described("internvl3_qwen2_chat");
    let few = ["--dummy-weights", "--batch", "2", "--requests", "5", "--output-tokens", "4", "--prompt-tokens", "8"];
    let ways: [&[&str]; 4] = [
        &["--mode", "throughput"],
        &["--mode", "serving"],
        &["--mode", "serving", "--request-rate", "200"],
        &["--mode", "throughput", "--images", "0"],
    ];
    for way in ways {
        let (ended, results) = bench(model.path(), &[&few, way].concat());
        assert_eq!(ended.code, 0, "{way:?}: {}", ended.error);
        let rate = number(&results, "/output_tokens_per_second");
        assert!((rate * number(&results, "/seconds") - 20.0).abs() < 1e-6, "{way:?}: {results}");
        let pictures = number(&results, "/work/images") > 0.0;
        assert_eq!(number(&results, "/work/image_tokens") > 0.0, pictures, "{results}");
    }
}

#[test]
fn trained_weights_are_measured_as_well_and_memory_alone_without_any() {
    let (ended, results) = bench(&dir("llava15_llama_hub"), &["--requests", "1", "--output-tokens", "4"]);
    assert_eq!((ended.code, &results["dummy_weights"]), (0, &Value::Bool(false)), "{}", ended.error);
    let ended = run(&["bench", "--mode", "bandwidth", "--device", "cpu"]);
    assert!(ended.code == 0 && ended.out.contains("GB/s"), "{}{}", ended.out, ended.error);
}

#[test]
fn what_cannot_be_measured_is_said() {
    let model = described("llava15_llama_hub");
    let (ended, _) = bench(model.path(), &["--output-tokens", "4"]);
    assert_eq!(ended.code, 10, "{}", ended.error);
    let (ended, _) = bench(model.path(), &["--dummy-weights", "--output-tokens", "1000000"]);
    assert!(ended.code == 2 && ended.error.contains("positions"), "{} {}", ended.code, ended.error);
    let ended = run(&["bench", "--device", "cpu"]);
    assert!(ended.error.contains("--model is missing"), "{}", ended.error);
}

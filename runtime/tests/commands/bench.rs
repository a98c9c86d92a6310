//! `bench`: from a description of a model alone, in each way in which requests are sent; what its figures have to do
//! with each other; and what it says where there is nothing to measure.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::case::{Ended, FAMILIES, dir, edit, json, run};

/// A folder with the description of a case and nothing else.
fn described(case: &str) -> TempDir {
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

/// Results of a model with drawn weights.
fn drawn(case: &str, words: &[&str]) -> (Ended, Value) {
    let (ended, results) = bench(described(case).path(), &[&["--dummy-weights"], words].concat());
    assert_eq!(ended.code, 0, "{words:?}: {}", ended.error);
    (ended, results)
}

fn number(results: &Value, path: &str) -> f64 {
    results.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {results}"))
}

fn assert_equal(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()), "{what}: {a} is not {b}");
}

/// What must hold between the figures of every run.
fn assert_consistent(results: &Value) {
    let setting = |name: &str| number(results, &format!("/settings/{name}"));
    for run in results["runs"].as_array().unwrap() {
        let seconds = number(run, "/seconds");
        let times = |rate: &str| number(run, rate) * seconds;
        let (requests, generated) = (number(run, "/requests"), number(run, "/generated_tokens"));
        assert_equal(generated, requests * setting("output_tokens"), "tokens of all answers");
        assert_equal(times("/output_tokens_per_second"), generated, "generated tokens");
        assert_equal(times("/prompt_tokens_per_second"), requests * setting("prompt_tokens"), "tokens of prompts");
        assert_equal(times("/requests_per_second"), requests, "requests");
        assert_equal(times("/images_per_second"), requests * setting("images"), "pictures");
        for quantiles in ["first_token_ms", "inter_token_ms"] {
            let [p50, p95, p99] = ["p50", "p95", "p99"].map(|name| number(run, &format!("/{quantiles}/{name}")));
            assert!(0.0 < p50 && p50 <= p95 && p95 <= p99 && p99 <= seconds * 1e3, "{run}");
        }
        if run["limit"].is_null() {
            continue;
        }
        let rate = run.pointer("/decode/tokens_per_second").unwrap_or(&run["output_tokens_per_second"]);
        let (limit, bytes) = (number(run, "/limit/tokens_per_second"), number(run, "/limit/bytes_per_step"));
        assert_equal(number(run, "/limit/percent"), 100.0 * rate.as_f64().unwrap() / limit, "the percentage");
        let read = number(results, "/read_bytes_per_second");
        assert_equal(limit * bytes, number(run, "/batch") * read, "the limit");
    }
}

#[test]
fn batches_are_measured_against_what_memory_allows() {
    // Long answers: else the first may be complete before the last begins.
    let words = ["--batch", "1,2", "--requests", "4", "--output-tokens", "256", "--quantization", "int8"];
    let (ended, results) = drawn("llava15_llama_hub", &words);
    assert_consistent(&results);
    let runs = results["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["batch"].clone()).collect::<Vec<_>>(), [1, 2]);
    for run in runs {
        assert_eq!((&run["requests"], &run["refused"]), (&json!(4), &json!(0)));
        assert!(number(run, "/decode/tokens_per_second") > 0.0, "{run}");
        assert!(number(run, "/decode/all_first_tokens_ms") > 0.0);
    }
    // The weights once, keys and values twice: 2 layers of 2 heads of 16 numbers in f32, for the prompt and half of the answer.
    let [one, two] = [0, 1].map(|run| number(&results, &format!("/runs/{run}/limit/bytes_per_step")));
    let text = &json(&dir("llava15_llama_hub").join("config.json"))["text_config"];
    let layer = ["num_hidden_layers", "num_key_value_heads"].map(|name| text[name].as_f64().unwrap());
    let head = text["hidden_size"].as_f64().unwrap() / text["num_attention_heads"].as_f64().unwrap();
    let context = number(&results, "/settings/prompt_tokens") + 128.0;
    assert_equal(two - one, 2.0 * layer[0] * layer[1] * head * 4.0 * context, "keys and values of one sequence");
    assert!(number(&results, "/read_bytes_per_second") > 1e8);
    assert!(number(&results, "/memory/weights_bytes") <= number(&results, "/memory/predicted_weights_bytes"));
    assert!(ended.out.contains(" % of ") && ended.out.contains("random weights"), "{}", ended.out);
    assert!(ended.error.contains("batch 2: 4 of 4 requests answered"), "{}", ended.error);
    assert_eq!(results["program"]["name"], "vlm-runtime");
}

#[test]
fn every_way_of_sending_answers_all_requests() {
    let few = ["--batch", "2", "--requests", "5", "--output-tokens", "4", "--prompt-tokens", "8"];
    let ways: [&[&str]; 5] = [
        &["--mode", "throughput"],
        &["--mode", "serving"],
        &["--mode", "serving", "--request-rate", "200"],
        &["--mode", "throughput", "--images", "0"],
        &["--mode", "serving", "--same-image"],
    ];
    for way in ways {
        let (_, results) = drawn("internvl3_qwen2_chat", &[&few, way].concat());
        assert_consistent(&results);
        assert_eq!(results["runs"][0]["requests"], 5, "{way:?}: {results}");
        let pictures = number(&results, "/settings/images") > 0.0;
        assert_eq!(number(&results, "/settings/image_tokens") > 0.0, pictures, "{results}");
        assert_eq!(results["runs"][0]["limit"].is_null(), way.contains(&"--request-rate"), "{way:?}: {results}");
        assert!(results["runs"][0]["decode"].is_null());
    }
}

#[test]
fn a_soak_answers_all_kinds_of_requests_and_leaves_no_block_behind() {
    let words = ["--mode", "soak", "--seconds", "12", "--batch", "3", "--output-tokens", "24", "--prompt-tokens", "12"];
    let (ended, results) = drawn("internvl3_qwen2_chat", &words);
    let soak = &results["soak"];
    let count = |name: &str| number(soak, &format!("/{name}"));
    assert!(count("answered") > 0.0 && count("cancelled") > 0.0, "{soak}");
    let sent = count("request_rate") * 12.0;
    assert!((count("answered") + count("cancelled") + count("refused") - sent.ceil()).abs() < 1.5, "{soak}");
    assert_equal(count("request_rate"), 0.95 * count("peak_requests_per_second"), "the rate");
    for name in ["kv_usage", "taken_bytes"] {
        assert_eq!(soak["idle"][0][name], soak["idle"][1][name], "{name}: something is still in use");
    }
    let pictures = [0, 1].map(|when| number(soak, &format!("/idle/{when}/picture_bytes")));
    assert!(pictures.iter().all(|bytes| *bytes > 0.0 && *bytes <= f64::from(1 << 28)), "{pictures:?}");
    assert!(number(soak, "/idle/0/kv_usage") > 0.0, "the short request has a block");
    let beside = |name: &str| number(soak, &format!("/beside_pictures/{name}"));
    assert!(beside("pictures") >= 1.0 && beside("tiles") > 1.0 && beside("streams") > 2.0, "{soak}");
    assert_equal(beside("p99_ratio"), beside("with_ms/p99") / beside("without_ms/p99"), "the ratio");
    assert!(ended.out.contains("idle after") && results["runs"].as_array().unwrap().is_empty(), "{}", ended.out);
    let parts = results["model"]["start_seconds"].as_object().unwrap();
    let sum: f64 = parts.values().map(|part| part.as_f64().unwrap()).sum();
    assert_equal(number(&results, "/model/load_seconds"), sum, "the start");
    assert!(
        number(&results, "/model/start_seconds/read") > 0.0 && number(&results, "/model/start_seconds/warm_up") > 0.0
    );
}

#[test]
fn every_family_is_drawn_in_every_number_format() {
    for case in FAMILIES.into_iter().chain(["internvl2_phi3_long_chat", "llava_next_llama_hub"]) {
        let mut bytes = Vec::new();
        for format in
            [&["--dtype", "f32"][..], &["--dtype", "bf16"], &["--quantization", "int8"], &["--quantization", "int4"]]
        {
            let words = [&["--requests", "1", "--output-tokens", "2", "--prompt-tokens", "4"], format].concat();
            let (_, results) = drawn(case, &words);
            assert_consistent(&results);
            bytes.push(number(&results, "/memory/weights_bytes"));
            assert!(number(&results, "/settings/tiles") >= 1.0);
        }
        assert!(bytes[0] > bytes[2] && bytes[2] > bytes[3] && bytes[0] > 1.5 * bytes[1], "{case}: {bytes:?}");
    }
}

#[test]
fn requests_without_room_in_the_queue_are_counted_and_the_rest_answered() {
    let words = ["--mode", "serving", "--request-rate", "100000", "--requests", "200", "--output-tokens", "2"];
    let (_, results) = drawn("llava15_llama_hub", &words);
    assert_consistent(&results);
    let [answered, refused] = ["requests", "refused"].map(|name| number(&results, &format!("/runs/0/{name}")));
    assert_equal(answered + refused, 200.0, "all requests");
    // One runs and 64 wait.
    assert!(refused > 0.0 && answered >= 65.0, "{results}");
}

#[test]
fn a_picture_that_was_seen_before_is_not_computed_again() {
    let counts = |more: &[&str]| {
        let few = ["--requests", "12", "--output-tokens", "2", "--prompt-tokens", "4", "--images", "8"];
        let (_, results) = drawn("llava15_llama_hub", &[&few, more].concat());
        let count = |name: &str| number(&results, &format!("/runs/0/counts/{name}"));
        ["tiles", "encoder_misses", "encoder_hits", "found_tokens"].map(|name| count(name) as u64)
    };
    assert_eq!(counts(&[]), [96, 96, 0, 0]);
    // A prompt has a token, 128 rows of pictures and three tokens more: four blocks are found, and the end of the last
    // picture is behind them.
    assert_eq!(counts(&["--same-images"]), [0, 0, 12, 12 * 128]);
}

#[test]
fn trained_weights_are_measured_as_well_and_memory_alone_without_any() {
    let words = ["--requests", "1", "--output-tokens", "8", "--profile"];
    let (ended, results) = bench(&dir("llava15_llama_hub"), &words);
    assert!(ended.error.contains("batch 1: shown to a profiler"), "{}", ended.error);
    assert_eq!((ended.code, &results["model"]["dummy_weights"]), (0, &Value::Bool(false)), "{}", ended.error);
    let file = tempfile::NamedTempFile::new().unwrap();
    let ended = run(&["bench", "--mode", "bandwidth", "--device", "cpu", "--json", file.path().to_str().unwrap()]);
    assert!(ended.code == 0 && ended.out.contains("GB/s"), "{}{}", ended.out, ended.error);
    let results = json(file.path());
    assert!(number(&results, "/read_bytes_per_second") > 1e8 && results["runs"].is_null(), "{results}");
}

#[test]
fn a_description_may_be_any_file() {
    let alone = tempfile::tempdir().unwrap();
    let file = alone.path().join("my-llava.json");
    std::fs::copy(dir("llava15_llama_hub").join("config.json"), &file).unwrap();
    let few = ["--requests", "1", "--output-tokens", "2"];
    let (ended, results) = bench(&file, &[&["--dummy-weights"], &few[..]].concat());
    assert_eq!((ended.code, results["runs"][0]["requests"].as_u64()), (0, Some(1)), "{}", ended.error);
    let (ended, _) = bench(&alone.path().join("none"), &[&["--dummy-weights"], &few[..]].concat());
    assert!(ended.code == 10 && ended.error.contains("none"), "{} {}", ended.code, ended.error);
}

/// One sentence behind the lines of progress.
fn assert_says(model: &Path, words: &[&str], code: i32, says: &[&str]) {
    let (ended, _) = bench(model, words);
    assert_eq!(ended.code, code, "{words:?}: {}", ended.error);
    let last = ended.error.trim_end().lines().last().unwrap_or_default().to_owned();
    assert!(says.iter().all(|word| last.contains(word)), "{words:?}: {last:?} does not say all of {says:?}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let model = described("llava15_llama_hub");
    let path = model.path();
    assert_says(path, &["--output-tokens", "4"], 10, &["model.safetensors"]);
    let long = ["--dummy-weights", "--output-tokens", "1000000"];
    assert_says(path, &long, 2, &["--prompt-tokens", "--output-tokens", "1000000", "1024 positions", "lower"]);
    assert_says(path, &["--dummy-weights", "--image-aspect", "tall"], 2, &["--image-aspect", "pad, crop"]);
    let internvl = described("internvl3_qwen2_chat");
    assert_says(internvl.path(), &["--dummy-weights", "--image-aspect", "pad"], 2, &["--image-aspect", "LLaVA-1.5"]);
    let batch = ["--dummy-weights", "--batch", "4", "--kv-bytes", "50000"];
    assert_says(path, &batch, 2, &["--kv-bytes 50000", "--batch 4", "raise"]);
    edit(&path.join("config.json"), |config| config["architectures"] = json!(["Qwen2VLForConditionalGeneration"]));
    assert_says(path, &["--dummy-weights"], 12, &["Qwen2VLForConditionalGeneration"]);
    std::fs::write(path.join("config.json"), "{").unwrap();
    assert_says(path, &["--dummy-weights"], 11, &["config.json"]);
    let ended = run(&["bench", "--device", "cpu"]);
    assert!(ended.code == 2 && ended.error.contains("--model is missing"), "{}", ended.error);
    let ended = run(&["bench", "--mode", "bandwidth", "--device", "cpu", "--json", "/nonexistent/x.json"]);
    assert!(ended.code == 9 && ended.error.contains("--json"), "{} {}", ended.code, ended.error);
    assert_eq!(ended.error.lines().count(), 1, "{}", ended.error);
}

#[test]
fn a_batch_for_which_there_is_no_memory_is_refused_with_both_numbers() {
    let registry = Path::new(env!("CARGO_MANIFEST_DIR")).join("../catalog/tests/models/llava-1.5-7b-hf.json");
    // 4096 sequences of 768 tokens of a LLaVA of 7 billion parameters: terabytes.
    let words = ["--dummy-weights", "--batch", "4096", "--dtype", "bf16"];
    assert_says(&registry, &words, 34, &["weights take", "KV cache", "this machine's memory are free", "batch"]);
    assert!(!bench(&registry, &words).0.error.contains("GPU"), "there is none");
}

//! Mistakes of a person: each has its own exit code and one sentence that names the file or flag.

use std::path::{Path, PathBuf};

use crate::case::{Ended, NAMES, copy, dir, edit, images, run, trace, verify};

type Harm = fn(&Path);

fn assert_says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.error);
    for word in words {
        assert!(ended.error.contains(word), "{:?} does not say {word:?}", ended.error);
    }
    assert_eq!(ended.error.trim_end().lines().count(), 1, "{}", ended.error);
}

#[test]
fn files_that_are_not_there_are_named() {
    assert_says(&verify(Path::new("/nonexistent/dir"), &[]), 3, &["/nonexistent/dir"]);
    for file in ["expected.json", "expected.safetensors"] {
        let copy = copy(NAMES[0]);
        std::fs::remove_file(copy.path().join(file)).unwrap();
        assert_says(&verify(copy.path(), &[]), 3, &[file, "docs/verify.md"]);
    }
    let copy = copy(NAMES[0]);
    std::fs::remove_file(copy.path().join("config.json")).unwrap();
    assert_says(&verify(copy.path(), &[]), 10, &["config.json"]);
    assert_says(&trace(Path::new("/nonexistent/model"), "Hi", &[], 1).1, 10, &["/nonexistent/model"]);
    assert_says(&trace(&dir(NAMES[0]), "<image>", &[PathBuf::from("/nonexistent.png")], 1).1, 3, &["/nonexistent.png"]);
    let no_prompt = ["--prompt-file", "/nonexistent.txt", "--max-tokens", "1", "--out", "/tmp"];
    let model = dir(NAMES[0]);
    let words = [&["trace", "--model", model.to_str().unwrap()], &no_prompt[..]].concat();
    assert_says(&run(&words), 3, &["/nonexistent.txt"]);
}

#[test]
fn malformed_references_are_named() {
    let harms: [(Harm, &[&str]); 7] = [
        (|dir| std::fs::write(dir.join("expected.json"), "{").unwrap(), &["expected.json"]),
        (|dir| std::fs::write(dir.join("expected.safetensors"), [0xFF; 64]).unwrap(), &["expected.safetensors"]),
        (|dir| edit(&dir.join("expected.json"), |json| json["greedy_ids"] = serde_json::json!([])), &["greedy_ids"]),
        (
            |dir| edit(&dir.join("expected.json"), |json| drop(json.as_object_mut().unwrap().remove("prompt"))),
            &["prompt"],
        ),
        (
            |dir| edit(&dir.join("expected.json"), |json| json["greedy_ids"][3] = 4_000_000_000_u32.into()),
            &["4000000000", "320"],
        ),
        (|dir| edit(&dir.join("expected.json"), |json| json["input_ids"][3] = 320.into()), &["320"]),
        (|dir| std::fs::rename(dir.join("images/0.png"), dir.join("images/first.png")).unwrap(), &["first.png"]),
    ];
    for (harm, words) in harms {
        let copy = copy(NAMES[0]);
        harm(copy.path());
        assert_says(&verify(copy.path(), &[]), 4, words);
    }
    let copy = copy(NAMES[0]);
    let path = copy.path().join("expected.safetensors");
    let mut all = crate::case::tensors(&path);
    all.remove("projected");
    candle_core::safetensors::save(&all.into_iter().collect(), &path).unwrap();
    assert_says(&verify(copy.path(), &[]), 4, &["expected.safetensors", "projected"]);
}

#[test]
fn pictures_and_prompts_that_do_not_fit_are_named() {
    let model = dir(NAMES[0]);
    let picture = images(&model);
    assert_says(&trace(&model, "<image> and <image>", &picture, 1).1, 6, &["prompt.txt", "2", "1"]);
    assert_says(&trace(&model, "No picture", &picture, 1).1, 6, &["prompt.txt", "<image>"]);
    assert_says(&trace(&model, "", &[], 1).1, 6, &["prompt.txt", "empty"]);
    assert_says(&trace(&model, "<image>", &[model.join("config.json")], 1).1, 5, &["config.json", "PNG"]);
}

#[test]
fn more_tokens_than_positions_are_refused_with_both_numbers() {
    let model = dir(NAMES[0]);
    assert_says(&trace(&model, "Hi", &[], 1022).1, 7, &["3 tokens", "1022", "1024"]);
    assert_says(&trace(&model, "Hi", &[], 4_294_967_295).1, 7, &["4294967295", "1024"]);
    let copy = copy(NAMES[0]);
    edit(&copy.path().join("expected.json"), |json| json["greedy_ids"] = vec![5; 1000].into());
    assert_says(&verify(copy.path(), &[]), 7, &["63 tokens", "1000", "1024"]);
}

#[test]
fn wrong_flags_are_refused() {
    let model = dir(NAMES[0]);
    let model = model.to_str().unwrap();
    assert_says(&run(&["verify"]), 2, &["<DIR>"]);
    assert_says(&run(&["verify", model, "--dtype", "f8"]), 2, &["f8"]);
    assert_says(&run(&["trace", "--model", model]), 2, &["--prompt-file"]);
    let zero = ["trace", "--model", model, "--prompt-file", "x", "--out", "y", "--max-tokens", "0"];
    assert_says(&run(&zero), 2, &["--max-tokens"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let prompt = tempfile::NamedTempFile::new().unwrap();
    let (model, prompt_path) = (dir(NAMES[0]), prompt.path().to_str().unwrap());
    let out = format!("{prompt_path}/out");
    let words =
        ["trace", "--model", model.to_str().unwrap(), "--prompt-file", prompt_path, "--max-tokens", "1", "--out", &out];
    assert_says(&run(&words), 9, &[&out, "--out"]);
}

//! Every model of the registry in its real geometry, with few layers: loads, and runs on a picture.
//!
//! Without arguments the slice of the test suite: each kind of tower, decoder and naming once. `--all --seed N` is the
//! campaign: the whole registry, with progress; a run that was cut off goes on where it stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod files;
mod names;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

/// Both namings of CLIP, with either decoder of LLaVA; each decoder of InternVL with the smaller tower, in both of its
/// namings; the larger tower. Rows of 896 numbers, which Q4_K does not take, are among them.
const SLICE: [&str; 7] = [
    "llava-v1.5-7b",
    "llava-v1.6-mistral-7b-hf",
    "InternVL2-1B",
    "InternVL2-2B",
    "InternVL2-4B",
    "InternVL3-1B-hf",
    "InternVL2-26B",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn models() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("catalog/tests/models")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn commit() -> String {
    let out = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// One model; what was found, or why not.
fn check(name: &str, seed: u64) -> Result<Value, String> {
    let dir = tempfile::tempdir().unwrap();
    let config = root().join("catalog/tests/models").join(format!("{name}.json"));
    files::write(&config, dir.path(), seed)?;
    run::run(dir.path())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--all") {
        let filter = words.iter().find(|word| !word.starts_with('-'));
        return slice(filter.map_or("", String::as_str));
    }
    let seed = words.iter().position(|word| word == "--seed").and_then(|at| words.get(at + 1));
    campaign(seed.map_or(1, |seed| seed.parse().expect("--seed takes a number")));
}

fn slice(filter: &str) {
    let (mut passed, mut failed) = (0, 0);
    for name in SLICE.iter().filter(|name| name.contains(filter) || "geometries".contains(filter)) {
        let begun = Instant::now();
        match check(name, 1) {
            Ok(found) => {
                println!("test {name} ... ok, {:.1} s, {found}", begun.elapsed().as_secs_f64());
                passed += 1;
            }
            Err(why) => {
                println!("test {name} ... FAILED: {why}");
                failed += 1;
            }
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    assert!(failed == 0, "{failed} geometries do not run");
}

fn campaign(seed: u64) {
    let path = root().join(format!("tests/results/geometries-{seed}.json"));
    let before: Value = std::fs::read(&path).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    let commit = commit();
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    if before["commit"] == commit.as_str() {
        done = serde_json::from_value(before["models"].clone()).unwrap();
    }
    let all = models();
    for (n, name) in all.iter().enumerate() {
        if done.get(name).is_some_and(|found| found["error"].is_null()) {
            println!("{:2} of {}  {name}: done before", n + 1, all.len());
            continue;
        }
        let begun = Instant::now();
        let mut found = check(name, seed).unwrap_or_else(|why| json!({"error": why}));
        found["seconds"] = json!((begun.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        println!("{:2} of {}  {name}: {found}", n + 1, all.len());
        done.insert(name.clone(), found);
        let failed = done.values().filter(|found| !found["error"].is_null()).count();
        let record = json!({"campaign": "geometries", "seed": seed, "commit": commit, "registry": all.len(),
                            "passed": done.len() - failed, "failed": failed, "models": done});
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
    }
    let failed = done.values().filter(|found| !found["error"].is_null()).count();
    println!("{} passed, {failed} failed; written to {}", done.len() - failed, path.display());
    assert!(failed == 0, "{failed} geometries do not run");
}

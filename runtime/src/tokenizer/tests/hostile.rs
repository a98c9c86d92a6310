//! Files that were damaged or made to harm: an error that names the file, or a tokenizer that works;
//! never a panic, never memory beyond the file's own size.

use std::fs;

use super::reference::file;
use super::*;

/// Numbers that are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

fn damage(bytes: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=draw.below(4) {
        let at = draw.below(bytes.len());
        match draw.below(5) {
            0 => bytes[at] = draw.below(256) as u8,
            1 => bytes[at] ^= 1 << draw.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => drop(bytes.splice(at..at, std::iter::repeat_n(draw.below(256) as u8, draw.below(9)))),
            _ => {
                let from = draw.below(bytes.len());
                let block = bytes[from..(from + draw.below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, block);
            }
        }
    }
    bytes
}

fn open_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<Tokenizer, CheckpointError> {
    fs::write(dir.join(name), bytes).unwrap();
    Tokenizer::open_in(dir)
}

fn use_it(tokenizer: &Tokenizer) {
    for text in ["", "a picture of 红色 é 🎨  </s><image>\n\0", "▁▁▁ aaaaaaa ﷺ①"] {
        let ids = encode(tokenizer, text, text, "");
        let mut detokenizer = tokenizer.detokenizer();
        let out: usize = ids.iter().map(|id| detokenizer.push(*id).len()).sum();
        assert!(out + detokenizer.finish().len() < 1 << 20);
    }
    let mut detokenizer = tokenizer.detokenizer();
    for id in (0..2000).chain([u32::MAX]) {
        detokenizer.push(id);
    }
}

fn fuzz(name: &str, original: &[u8], rounds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut draw, mut refused) = (Draw(7), 0);
    for _ in 0..rounds {
        match open_file(dir.path(), name, &damage(original, &mut draw)) {
            Ok(tokenizer) => use_it(&tokenizer),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_damaged_tokenizer_model_is_refused_or_works() {
    fuzz("tokenizer.model", &file("no_prefix.model"), 1500);
    fuzz("tokenizer.model", &file("nfkc.model"), 400);
}

#[test]
fn a_damaged_tokenizer_json_is_refused_or_works() {
    let original = fs::read(fixtures().join("llava15_llama_hub/tokenizer.json")).unwrap();
    let small: serde_json::Value = serde_json::from_slice(&original).unwrap();
    fuzz("tokenizer.json", &serde_json::to_vec(&small).unwrap(), 1500);
}

#[test]
fn merges_that_make_no_piece_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (merges, word) in [
        (serde_json::json!([["a", "b"], ["ab", "ab"]]), "merges[1]"),
        (serde_json::json!(["a b", "b"]), "merges[1]"),
        (serde_json::json!([["a", "c"]]), "merges[0]"),
        (serde_json::json!([[1, 2]]), "merges[0]"),
    ] {
        let json = serde_json::json!({"version": "1.0", "added_tokens": [],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges}});
        let error = open_file(dir.path(), "tokenizer.json", json.to_string().as_bytes()).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(word), "{error}");
    }
}

/// A length-delimited field.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = value.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(value);
    out
}

fn piece(text: &str, kind: u8) -> Vec<u8> {
    field(1, &[field(1, text.as_bytes()), vec![0x18, kind]].concat())
}

#[test]
fn what_is_wrong_with_a_model_file_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let bpe = field(2, &[0x18, 2]);
    let long = "x".repeat(2000);
    let cases: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "no pieces"),
        ([piece("<unk>", 2), field(2, &[0x18, 1])].concat(), "Unigram"),
        (piece("<unk>", 2), "Unigram"),
        ([piece("<unk>", 2), field(2, &[0x18, 3])].concat(), "word"),
        ([piece("a", 1), bpe.clone()].concat(), "no unknown piece"),
        ([piece("a", 1), piece("a", 1), piece("<unk>", 2), bpe.clone()].concat(), "twice"),
        ([piece("<unk>", 2), piece(&long, 1), bpe.clone()].concat(), "longer than"),
        ([piece("<unk>", 2), piece("", 1), bpe.clone()].concat(), "empty"),
        ([piece("<unk>", 2), field(2, &[0x18, 2, 0x98, 0x02, 1])].concat(), "<0x00>"),
        ([piece("<unk>", 2), bpe.clone(), field(3, &field(2, &[255, 0, 0, 0, 1]))].concat(), "charsmap"),
        ([piece("<unk>", 2), bpe.clone(), field(5, &field(2, &[1]))].concat(), "denormalizer"),
    ];
    for (bytes, word) in cases {
        let error = open_file(dir.path(), "tokenizer.model", &bytes).err().unwrap().to_string();
        assert!(error.contains("tokenizer.model") && error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_long_text_of_one_character_takes_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = open_file(dir.path(), "tokenizer.model", &file("no_prefix.model")).unwrap();
    for text in ["a".repeat(300_000), " ".repeat(300_000), "<|im_start|".repeat(30_000)] {
        assert!(!encode(&tokenizer, &text, "", "").is_empty());
    }
}

#[test]
fn a_malformed_small_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), file("llama.model")).unwrap();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        let error = open_file(dir.path(), name, b"[1").err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        let error = Tokenizer::open_in(dir.path()).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("regular file"), "{error}");
        fs::remove_dir(dir.path().join(name)).unwrap();
    }
}

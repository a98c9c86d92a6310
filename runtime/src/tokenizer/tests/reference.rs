//! Equal ids and texts with the `SentencePiece` library and with transformers' tokenizer over it
//! (`tests/fixtures/make_tokenizers.py`).

use std::collections::{BTreeMap, HashSet};
use std::fs;

use serde::Deserialize;

use super::*;
use crate::tokenizer::sentencepiece::{PieceDetokenizer, SentencePiece};

const MODELS: [&str; 7] = ["llama", "no_prefix", "no_bytes", "extra_spaces", "nfkc", "nfkc_bytes", "ties"];

#[derive(Deserialize)]
struct Decoded {
    texts: BTreeMap<usize, String>,
    random: Vec<(Vec<u32>, String)>,
}

pub(super) fn file(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("tokenizers").join(name)).unwrap()
}

pub(super) fn model(name: &str) -> Arc<SentencePiece> {
    Arc::new(SentencePiece::read(&file(&format!("{name}.model"))).unwrap())
}

pub(super) fn strings() -> Vec<String> {
    serde_json::from_slice(&file("strings.json")).unwrap()
}

fn expected_ids(name: &str) -> Vec<Vec<u32>> {
    let bytes = file(&format!("{name}.ids"));
    let mut numbers = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 8);
    let mut rows = Vec::new();
    while let Some(len) = numbers.next() {
        rows.push(numbers.by_ref().take(len as usize).collect());
    }
    rows
}

fn text(model: &Arc<SentencePiece>, ids: &[u32]) -> String {
    let mut detokenizer = PieceDetokenizer::new(Arc::clone(model), Arc::default());
    let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text + &detokenizer.finish()
}

#[test]
fn ids_of_every_string_are_the_librarys() {
    let (strings, nothing) = (strings(), HashSet::new());
    assert!(strings.len() >= 5000);
    for name in MODELS {
        let (model, expected) = (model(name), expected_ids(name));
        assert_eq!(expected.len(), strings.len());
        for (string, expected) in strings.iter().zip(&expected) {
            let mut ids = Vec::new();
            model.encode(string, None, &nothing, &mut ids);
            assert_eq!(&ids, expected, "{name}: {string:?}");
        }
    }
}

#[test]
fn texts_of_ids_are_the_librarys() {
    let strings = strings();
    for name in MODELS {
        let model = model(name);
        let decoded: Decoded = serde_json::from_slice(&file(&format!("{name}.decoded.json"))).unwrap();
        for (number, ids) in expected_ids(name).iter().enumerate() {
            let expected = decoded.texts.get(&number).unwrap_or(&strings[number]);
            assert_eq!(&text(&model, ids), expected, "{name}: {ids:?}");
        }
        for (ids, expected) in &decoded.random {
            assert_eq!(&text(&model, ids), expected, "{name}: {ids:?}");
        }
    }
}

/// The files of an example with the model `llama`, which all of them share.
pub(super) fn added(name: &str) -> (tempfile::TempDir, PathBuf) {
    let source = fixtures().join("tokenizers/added").join(name);
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    fs::write(dir.path().join("tokenizer.model"), file("llama.model")).unwrap();
    (dir, source)
}

#[test]
fn added_tokens_and_their_flags_are_as_in_transformers() {
    for name in ["phi_like", "no_bos", "legacy"] {
        let (dir, source) = added(name);
        let tokenizer = Tokenizer::open_in(dir.path()).unwrap();
        let expected: Vec<(String, Vec<u32>)> =
            serde_json::from_slice(&fs::read(source.join("expected.json")).unwrap()).unwrap();
        assert!(expected.len() > 200);
        for (text, expected) in expected {
            assert_eq!(tokenizer.encode(&text, &tokenizer.protect()).unwrap(), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn special_ids_are_found_by_string() {
    let (dir, _) = added("phi_like");
    let tokenizer = Tokenizer::open_in(dir.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some("<s>"), Some("</s>")));
    assert_eq!((tokenizer.id("<s>"), tokenizer.id("</s>"), tokenizer.id("no such token")), (Some(1), Some(2), None));
    let id = tokenizer.id("<IMG_CONTEXT>").unwrap();
    assert_eq!(tokenizer.token(id).as_deref(), Some("<IMG_CONTEXT>"));
    assert_eq!(tokenizer.token(1_000_000), None);
}

#[test]
fn special_strings_typed_by_a_person_stay_text_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), file("no_prefix.model")).unwrap();
    let own = Tokenizer::open_in(dir.path()).unwrap();
    let (dir, _) = added("phi_like");
    let listed = Tokenizer::open_in(dir.path()).unwrap();
    for (tokenizer, special) in [
        (&own, "<|im_start|>"),
        (&own, "</s>"),
        (&own, "<unk>"),
        (&listed, "<IMG_CONTEXT>"),
        (&listed, "<|end|>"),
        (&listed, "<s>"),
    ] {
        let id = tokenizer.id(special).unwrap();
        let count = |ids: &[u32]| ids.iter().filter(|own| **own == id).count();
        let outside = count(&encode(tokenizer, &format!("a{special}"), "text", ""));
        let ids = encode(tokenizer, &format!("a{special}"), &format!("x{special}y"), "");
        assert_eq!(count(&ids), outside, "{special}");
        let mut detokenizer = tokenizer.detokenizer();
        let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
        assert!(text.contains(&format!("x{special}y")), "{text:?}");
    }
}

#[test]
fn tokenizer_json_wins_and_having_neither_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::open_in(dir.path()).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("tokenizer.model") && error.contains("put"), "{error}");
    fs::write(dir.path().join("tokenizer.model"), file("llama.model")).unwrap();
    assert_eq!(Tokenizer::open_in(dir.path()).unwrap().id("<image>"), None);
    fs::copy(fixtures().join("llava15_llama_hub/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::open_in(dir.path()).unwrap().id("<image>").is_some());
}

//! Text of a person stays text; text of the model comes whole.

mod hostile;
mod reference;
mod streams;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::*;
use proptest::prelude::*;

const SPECIAL: [&str; 5] = ["<unk>", "<s>", "</s>", "<pad>", "<image>"];

fn open() -> Tokenizer {
    Tokenizer::open(&Checkpoint::open(&fixtures().join("llava15_llama_hub")).unwrap()).unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn json(tokenizer: &Tokenizer) -> &Json {
    let Engine::Json(json) = &tokenizer.engine else { panic!("not a tokenizer.json") };
    json
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    json(tokenizer).whole.decode(ids, true).unwrap()
}

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(open);
    &TOKENIZER
}

fn encode(tokenizer: &Tokenizer, before: &str, text: &str, after: &str) -> Vec<u32> {
    let mut protected = tokenizer.protect();
    let taken = protected.take(text);
    tokenizer.encode(&format!("{before}{taken}{after}"), &protected).unwrap()
}

#[test]
fn special_strings_typed_by_a_person_stay_text() {
    let tokenizer = tokenizer();
    for special in SPECIAL {
        let ids = encode(tokenizer, "USER: <image>\n", &format!("what is {special}?"), " ASSISTANT:</s>");
        let id = tokenizer.id(special).unwrap();
        let expected = [1, 2, 260].iter().filter(|own| **own == id).count();
        assert_eq!(ids.iter().filter(|i| **i == id).count(), expected, "{special}");
        let text = json(tokenizer).plain.decode(&ids[8..], false).unwrap();
        assert!(text.contains(&format!("what is {special}?")), "{text}");
    }
}

#[test]
fn two_texts_do_not_join_to_a_special_string() {
    let tokenizer = tokenizer();
    for (left, right) in [("a <im", "age> b"), ("<", "/s>"), ("</", "s>"), ("<image", ">")] {
        let mut protected = tokenizer.protect();
        let text = protected.take(left) + &protected.take(right);
        let ids = tokenizer.encode(&text, &protected).unwrap();
        assert_eq!(ids[0], 1);
        assert!(ids[1..].iter().all(|id| (3..259).contains(id)), "{left}{right}: {ids:?}");
        assert_eq!(decode(tokenizer, &ids), format!("{left}{right}"));
    }
}

#[test]
fn bos_comes_once() {
    let mut tokenizer = open();
    assert_eq!(encode(&tokenizer, "", "a", ""), [1, 67]);
    assert_eq!(encode(&tokenizer, "", "<s>", "").iter().filter(|id| **id == 1).count(), 1);
    tokenizer.bos = Some("<s>".to_owned());
    assert_eq!(encode(&tokenizer, "<s>", "a", ""), [1, 67]);
    assert_eq!(encode(&tokenizer, "<s>", "a<s>", "")[..2], [1, 67]);
    assert_eq!(encode(&tokenizer, "<s>", "a<s>", "").iter().filter(|id| **id == 1).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_becomes_special(parts in proptest::collection::vec(prop_oneof![
        proptest::sample::select(SPECIAL.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(vec!["<", ">", "/s", "image", "<<s>", "</s", "\u{FDD0}", "\u{FDD1}", "0"]).prop_map(str::to_owned),
        ".{0,6}",
    ], 0..8)) {
        let tokenizer = tokenizer();
        let text = parts.concat();
        let ids = encode(tokenizer, "", &text, "");
        prop_assert_eq!(ids[0], 1);
        prop_assert!(ids[1..].iter().all(|id| (3..259).contains(id)), "{:?}: {:?}", text, ids);
        prop_assert_eq!(decode(tokenizer, &ids), text);
    }
}

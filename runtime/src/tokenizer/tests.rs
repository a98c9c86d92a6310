//! Text of a person stays text; text of the model comes whole.

use std::path::Path;
use std::sync::LazyLock;

use super::*;
use proptest::prelude::*;

const SPECIAL: [&str; 5] = ["<unk>", "<s>", "</s>", "<pad>", "<image>"];

fn open() -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub");
    Tokenizer::open(&Checkpoint::open(&dir).unwrap()).unwrap()
}

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(open);
    &TOKENIZER
}

/// A byte-fallback tokenizer as Llama's: spaces as `▁`, the first one stripped.
fn with_byte_fallback() -> Arc<tokenizers::Tokenizer> {
    let mut vocab = serde_json::Map::new();
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), byte.into());
    }
    for (n, piece) in ["▁", "▁a", "b", "▁cat", "s", "颜", "色", ".", "é"].iter().enumerate() {
        vocab.insert((*piece).to_owned(), (256 + n).into());
    }
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true}
    });
    Arc::new(serde_json::from_value(json).unwrap())
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
        let text = tokenizer.plain.decode(&ids[8..], false).unwrap();
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
        assert_eq!(tokenizer.whole.decode(&ids, true).unwrap(), format!("{left}{right}"));
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

fn answer(tokenizer: &Arc<tokenizers::Tokenizer>, ids: &[u32]) -> (String, bool) {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
    let pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    let early = pieces.concat();
    (early.clone() + &detokenizer.finish(), early.contains('\u{FFFD}'))
}

#[test]
fn a_character_in_pieces_comes_when_it_is_whole() {
    let tokenizer = tokenizer();
    let text = "颜色 é 🎨!";
    let ids = encode(tokenizer, "", text, "");
    let mut detokenizer = tokenizer.detokenizer();
    let pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).filter(|piece| !piece.is_empty()).collect();
    assert_eq!(pieces, text.chars().map(String::from).collect::<Vec<_>>());
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn a_lone_half_character_comes_at_the_end_only() {
    let tokenizer = tokenizer();
    let half = encode(tokenizer, "", "颜", "")[1];
    let mut detokenizer = tokenizer.detokenizer();
    assert_eq!(detokenizer.push(half), "");
    assert_eq!(detokenizer.finish(), "\u{FFFD}");
    let exclamation = encode(tokenizer, "", "!", "")[1];
    assert_eq!(detokenizer.push(half), "");
    assert_eq!(detokenizer.push(exclamation), "\u{FFFD}!");
}

#[test]
fn byte_fallback_goes_on_after_bytes_that_spoil_a_character() {
    let tokenizer = with_byte_fallback();
    let [a, b, c] = "颜".as_bytes() else { panic!() };
    let ids = [257, u32::from(*a), u32::from(*b), u32::from(*c), 0xE9, 259, 260];
    let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer));
    let pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    assert_eq!(pieces[..4], ["a", "", "", "颜"]);
    assert!(pieces[4..].concat().ends_with(" cats"), "{pieces:?}");
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
        prop_assert_eq!(tokenizer.whole.decode(&ids, true).unwrap(), text);
    }

    #[test]
    fn pieces_of_any_ids_are_the_whole(ids in proptest::collection::vec(0u32..330, 0..120)) {
        let tokenizer = tokenizer();
        let whole = tokenizer.whole.decode(&ids, true).unwrap();
        prop_assert_eq!(answer(&tokenizer.whole, &ids).0, whole);
    }

    #[test]
    fn pieces_of_valid_text_have_no_half_characters(text in ".{0,40}") {
        let tokenizer = tokenizer();
        let ids = encode(tokenizer, "", &text, "");
        let (whole, torn) = answer(&tokenizer.whole, &ids);
        prop_assert!(!torn || text.contains(char::REPLACEMENT_CHARACTER));
        prop_assert_eq!(whole, text);
    }

    #[test]
    fn byte_fallback_gives_the_whole_too(words in proptest::collection::vec(prop_oneof![
        (256u32..265).prop_map(|id| vec![id]),
        any::<char>().prop_filter("stands for a broken character itself", |c| *c != char::REPLACEMENT_CHARACTER).prop_map(|c| c.to_string().bytes().map(u32::from).collect()),
    ], 0..40)) {
        let tokenizer = with_byte_fallback();
        let ids = words.concat();
        let whole = tokenizer.decode(&ids, true).unwrap();
        let (got, torn) = answer(&tokenizer, &ids);
        prop_assert!(!torn || whole.contains(char::REPLACEMENT_CHARACTER));
        prop_assert_eq!(got, whole);
    }
}

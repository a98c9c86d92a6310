//! Text of the model comes as it is made, whole characters only, and is in the end what decoding all ids
//! at once gives.

use super::reference::{added, model};
use super::*;
use crate::tokenizer::window::WindowDetokenizer;

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

/// The byte-level vocabulary of the trained example.
fn example() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava/model");
        Tokenizer::open_in(&dir).unwrap()
    });
    &TOKENIZER
}

fn pieces() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::open_in(added("phi_like").0.path()).unwrap());
    &TOKENIZER
}

/// What comes at once for each id, then what comes at the end.
fn stream(mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
    let mut out: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    out.push(detokenizer.finish());
    out
}

#[test]
fn a_character_in_pieces_comes_when_it_is_whole() {
    let text = "颜色 é 🎨!";
    let (tokenizer, pieces) = (tokenizer(), pieces());
    for (tokenizer, ids) in [(tokenizer, encode(tokenizer, "", text, "")), (pieces, encode(pieces, "", text, ""))] {
        let mut given = stream(tokenizer.detokenizer(), &ids);
        assert_eq!(given.pop().unwrap(), "");
        given.retain(|piece| !piece.is_empty());
        assert_eq!(given, text.chars().map(String::from).collect::<Vec<_>>());
    }
}

#[test]
fn a_lone_half_character_comes_when_nothing_can_complete_it() {
    let tokenizer = tokenizer();
    let half = encode(tokenizer, "", "颜", "")[1];
    let exclamation = encode(tokenizer, "", "!", "")[1];
    assert_eq!(stream(tokenizer.detokenizer(), &[half]), ["", "\u{FFFD}"]);
    assert_eq!(stream(tokenizer.detokenizer(), &[half, exclamation]), ["", "\u{FFFD}!", ""]);
}

#[test]
fn a_detokenizer_begins_anew_when_it_has_finished() {
    for tokenizer in [tokenizer(), pieces()] {
        let ids = encode(tokenizer, "", "two words", "");
        let mut detokenizer = tokenizer.detokenizer();
        for _ in 0..2 {
            let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
            assert_eq!(text + &detokenizer.finish(), "two words");
        }
    }
}

#[test]
fn the_work_grows_with_the_answer_and_no_faster() {
    let tokenizer = with_byte_fallback();
    let run: Vec<u32> = std::iter::repeat_n([0xE9u32, 0xA2, 0x9C], 1000).flatten().chain([257]).collect();
    for pattern in [&[256][..], &[257, 258], &[0xE9, 259], &[261, 0xF0, 0x9F, 0x8E, 0xA8, 262, 256, 256], &run] {
        let ids: Vec<u32> = pattern.iter().copied().cycle().take(6002).collect();
        let mut detokenizer = WindowDetokenizer::new(Arc::clone(&tokenizer));
        let text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
        let text = text + &detokenizer.finish();
        assert!(detokenizer.decoded < 40 * ids.len(), "{} tokens decoded for {}", detokenizer.decoded, ids.len());
        assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
    }
}

/// Ids of whole characters and of any bytes in a vocabulary whose bytes begin at `first`.
fn bytes_from(first: u32) -> impl Strategy<Value = Vec<u32>> {
    let of = move |text: String| text.bytes().map(|byte| first + u32::from(byte)).collect::<Vec<u32>>();
    prop_oneof![
        any::<char>().prop_map(move |c| of(c.to_string())),
        "[一-龥😀-🙏]{1,3}".prop_map(of),
        any::<u8>().prop_map(move |byte| vec![first + u32::from(byte)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_of_any_ids_are_the_whole(ids in proptest::collection::vec(0u32..330, 0..120)) {
        prop_assert_eq!(stream(tokenizer().detokenizer(), &ids).concat(), decode(tokenizer(), &ids));
    }

    #[test]
    fn pieces_of_any_ids_of_the_example_are_the_whole(
        ids in proptest::collection::vec(prop_oneof![0u32..3000, 0u32..300], 0..80),
    ) {
        prop_assert_eq!(stream(example().detokenizer(), &ids).concat(), decode(example(), &ids));
    }

    #[test]
    fn pieces_of_valid_text_have_no_half_characters(text in "(.|[一-龥]|[😀-🙏]){0,40}") {
        for tokenizer in [tokenizer(), example(), pieces()] {
            let ids = encode(tokenizer, "", &text, "");
            let given = stream(tokenizer.detokenizer(), &ids);
            let whole = |text: &str| !text.contains(char::REPLACEMENT_CHARACTER);
            prop_assert!(!whole(&text) || whole(&given.concat()));
            // The example puts no space in front, but strips one.
            let strips = std::ptr::eq(tokenizer, example()) && text.starts_with(' ');
            prop_assert_eq!(given.concat(), &text[usize::from(strips)..]);
        }
    }

    #[test]
    fn byte_fallback_gives_the_whole_too(words in proptest::collection::vec(prop_oneof![
        (256u32..265).prop_map(|id| vec![id]),
        bytes_from(0),
    ], 0..40)) {
        let tokenizer = with_byte_fallback();
        let ids = words.concat();
        let given = stream(Detokenizer::of_json(&tokenizer), &ids);
        prop_assert_eq!(given.concat(), tokenizer.decode(&ids, true).unwrap());
    }

    /// A replacement character shows only where the bytes of the whole run are no characters.
    #[test]
    fn sentencepiece_bytes_come_as_characters(words in proptest::collection::vec(prop_oneof![
        (259u32..900).prop_map(|id| vec![id]),
        bytes_from(3),
    ], 0..40)) {
        let ids = words.concat();
        let model = model("llama");
        prop_assert_eq!(model.piece(3), Some("<0x00>"));
        let mut expected = String::new();
        let mut run: Vec<u8> = Vec::new();
        let end = |run: &mut Vec<u8>, expected: &mut String| {
            for chunk in run.utf8_chunks() {
                expected.push_str(chunk.valid());
                expected.extend(chunk.invalid().iter().map(|_| '\u{FFFD}'));
            }
            run.clear();
        };
        let mut stripped = false;
        for id in &ids {
            if let Some(byte) = id.checked_sub(3).filter(|byte| *byte < 256) {
                run.push(byte as u8);
                continue;
            }
            end(&mut run, &mut expected);
            let text = model.piece(*id).unwrap().replace('▁', " ");
            let first = expected.is_empty() && !stripped && text.starts_with(' ');
            stripped |= first;
            expected.push_str(&text[usize::from(first)..]);
        }
        end(&mut run, &mut expected);
        prop_assert_eq!(stream(pieces().detokenizer(), &ids).concat(), expected);
    }
}

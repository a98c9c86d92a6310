//! Ids of one answer to text as they come, complete characters only. Chooses the way that fits the
//! tokenizer: bytes, pieces, or a window of the last tokens.

use std::sync::Arc;

use tokenizers::{DecoderWrapper, Tokenizer};

use super::byte_level::{ByteLevelDetokenizer, Strip};
use super::sentencepiece::PieceDetokenizer;
use super::window::WindowDetokenizer;

/// Turns the ids of one answer into text, complete characters only. What `push` and `finish` give together
/// is what decoding all ids at once gives; the work for one id does not grow with the answer.
pub struct Detokenizer(Way);

enum Way {
    ByteLevel(ByteLevelDetokenizer),
    Pieces(Box<PieceDetokenizer>),
    Window(WindowDetokenizer),
}

impl Detokenizer {
    pub(super) fn of_json(tokenizer: &Arc<Tokenizer>) -> Self {
        let strip = tokenizer.get_decoder().and_then(byte_level);
        let tokenizer = Arc::clone(tokenizer);
        Self(match strip {
            Some(strip) => Way::ByteLevel(ByteLevelDetokenizer::new(tokenizer, strip)),
            None => Way::Window(WindowDetokenizer::new(tokenizer)),
        })
    }

    pub(super) fn of_pieces(pieces: PieceDetokenizer) -> Self {
        Self(Way::Pieces(Box::new(pieces)))
    }

    /// Text that became certain with `id`; empty while a character is incomplete. Special tokens give none.
    pub fn push(&mut self, id: u32) -> String {
        match &mut self.0 {
            Way::ByteLevel(way) => way.push(id),
            Way::Pieces(way) => way.push(id),
            Way::Window(way) => way.push(id),
        }
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        match &mut self.0 {
            Way::ByteLevel(way) => way.finish(),
            Way::Pieces(way) => way.finish(),
            Way::Window(way) => way.finish(),
        }
    }
}

/// What is stripped behind a byte-level decoder, where `decoder` is one.
pub(super) fn byte_level(decoder: &DecoderWrapper) -> Option<Strip> {
    let nothing = Strip { content: ' ', most: 0 };
    match decoder {
        DecoderWrapper::ByteLevel(_) => Some(nothing),
        DecoderWrapper::Sequence(sequence) => match sequence.get_decoders() {
            [DecoderWrapper::ByteLevel(_)] => Some(nothing),
            [DecoderWrapper::ByteLevel(_), DecoderWrapper::Strip(strip)] => {
                Some(Strip { content: strip.content, most: strip.start })
            }
            _ => None,
        },
        _ => None,
    }
}

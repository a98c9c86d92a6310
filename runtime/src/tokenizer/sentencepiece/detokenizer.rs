//! Ids to text as they come, with the work of one piece for each. Follows the library's `Decode`.

use std::collections::HashMap;
use std::sync::Arc;

use super::SentencePiece;
use super::normalize::SPACE;
use super::proto::Kind;
use crate::tokenizer::utf8::Utf8Stream;

/// Turns the ids of one text into that text, complete characters only.
pub struct PieceDetokenizer {
    model: Arc<SentencePiece>,
    /// Text of tokens that the checkpoint adds to or renames in the vocabulary; empty for special ones.
    added: Arc<HashMap<u32, String>>,
    bytes: Utf8Stream,
    at_start: bool,
    first_space_gone: bool,
    anything_given: bool,
}

impl PieceDetokenizer {
    /// At the start of a text.
    pub fn new(model: Arc<SentencePiece>, added: Arc<HashMap<u32, String>>) -> Self {
        let bytes = Utf8Stream::each_byte();
        Self { model, added, bytes, at_start: true, first_space_gone: false, anything_given: false }
    }

    /// Text that became certain with `id`.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        let (model, added) = (Arc::clone(&self.model), Arc::clone(&self.added));
        let piece = model.pieces.get(id as usize);
        if let Some(text) = added.get(&id) {
            self.end_of_bytes(&mut out);
            out.push_str(text);
        } else if let Some(byte) = piece.filter(|piece| piece.kind == Kind::Byte).and_then(|piece| byte(&piece.text)) {
            self.bytes.push(&[byte], &mut out);
        } else if let Some(piece) = piece {
            self.end_of_bytes(&mut out);
            match piece.kind {
                Kind::Control => {}
                Kind::Unknown => out.push_str(&model.unk_surface),
                _ => self.piece(&piece.text, &mut out),
            }
        }
        self.anything_given |= !out.is_empty();
        out
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.bytes.finish(&mut out);
        (self.at_start, self.first_space_gone, self.anything_given) = (true, false, false);
        out
    }

    fn end_of_bytes(&mut self, out: &mut String) {
        self.bytes.finish(out);
        self.at_start &= !(self.first_space_gone || self.anything_given || !out.is_empty());
    }

    fn piece(&mut self, text: &str, out: &mut String) {
        let mut text = text;
        if self.at_start
            && self.model.strips_first_space
            && let Some(rest) = text.strip_prefix(SPACE)
        {
            text = rest;
            // Where extra spaces are removed, all of them go.
            self.first_space_gone = !self.model.strips_every_first_space;
        }
        out.push_str(&text.replace(SPACE, " "));
    }
}

fn byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

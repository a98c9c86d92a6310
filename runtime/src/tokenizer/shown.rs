//! What single tokens stand for, in bytes: for the probabilities that are told of them, and for the forms that an
//! answer must have.

use super::byte_level;
use super::detokenizer;
use super::{Engine, Tokenizer};

/// What `SentencePiece` writes for a space.
const SPACE: char = '\u{2581}';

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Text, or part of a character.
    Bytes(Vec<u8>),
    /// Nothing that is shown; its name.
    Special(String),
}

impl Tokenizer {
    /// Number of ids, those between that no token has among them.
    pub fn size(&self) -> usize {
        match &self.engine {
            Engine::Json(json) => json.whole.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1),
            Engine::Pieces(pieces) => pieces.size(),
        }
    }

    /// What the token `id` stands for in the middle of a text; `None` where there is no such token.
    pub fn shown(&self, id: u32) -> Option<Shown> {
        match &self.engine {
            Engine::Json(json) => {
                let token = json.whole.id_to_token(id)?;
                let added = json.whole.get_added_vocabulary();
                if added.is_special_token(&token) {
                    return Some(Shown::Special(token));
                }
                if added.get_added_tokens_decoder().contains_key(&id) {
                    return Some(Shown::Bytes(token.into_bytes()));
                }
                let byte_level = json.whole.get_decoder().and_then(detokenizer::byte_level).is_some();
                Some(Shown::Bytes(if byte_level { byte_level::bytes(token) } else { of_piece(&token) }))
            }
            Engine::Pieces(pieces) => pieces.shown(id),
        }
    }
}

/// The bytes of a piece as byte fallback and `SentencePiece`'s spaces have them.
pub(super) fn of_piece(piece: &str) -> Vec<u8> {
    let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|digits| digits.len() == 2);
    match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => piece.replace(SPACE, " ").into_bytes(),
    }
}

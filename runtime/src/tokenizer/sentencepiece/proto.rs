//! The parts of `SentencePiece`'s `ModelProto` that tokenising needs (`sentencepiece_model.proto`), with
//! limits on what a file may ask for.

use super::super::wire::{Fields, Value};

/// Pieces that a vocabulary may have; the largest published has 262 144.
const MAX_PIECES: usize = 1 << 20;
/// Bytes that one piece may have.
const MAX_PIECE_BYTES: usize = 1024;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// What stands for text that has no piece.
    Unknown,
    /// Steers the model; text never becomes it.
    Control,
    /// Taken out of the text before anything else.
    UserDefined,
    /// A piece that is taken apart again.
    Unused,
    /// One byte, for text that has no piece.
    Byte,
}

/// One entry of the vocabulary; its id is its place.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its text, spaces as `▁`.
    pub text: String,
    /// The higher, the earlier it is merged.
    pub score: f32,
    /// What it is for.
    pub kind: Kind,
}

/// `TrainerSpec.model_type`.
const BPE: u64 = 2;

/// A model file, read and found to be one that is served.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags as the file has them")]
pub struct ModelFile {
    /// The vocabulary.
    pub pieces: Vec<Piece>,
    /// Text without pieces becomes bytes.
    pub byte_fallback: bool,
    /// What an unknown token shows.
    pub unk_surface: String,
    /// String of the token that starts a text.
    pub bos_piece: String,
    /// String of the token that ends a text.
    pub eos_piece: String,
    /// The rules of replacement, compiled; empty for none.
    pub charsmap: Vec<u8>,
    /// A `▁` comes before every text.
    pub add_dummy_prefix: bool,
    /// Runs of spaces become one, and none at the ends.
    pub remove_extra_whitespaces: bool,
    /// Spaces become `▁`.
    pub escape_whitespaces: bool,
}

impl ModelFile {
    /// Reads the bytes of a `tokenizer.model`.
    ///
    /// # Errors
    /// What is wrong or not served, as the rest of a sentence that begins with the file's name.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut model = Self {
            pieces: Vec::new(),
            byte_fallback: false,
            unk_surface: " \u{2047} ".to_owned(),
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut model_type = 1;
        for field in Fields::new(bytes) {
            match field? {
                (1, value) => model.add_piece(value.bytes()?)?,
                (2, value) => model.read_trainer(value.bytes()?, &mut model_type)?,
                (3, value) => model.read_normalizer(value.bytes()?)?,
                (5, value) => refuse_denormalizer(value.bytes()?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(Refusal::Malformed("it has no pieces".to_owned()));
        }
        if model_type != BPE {
            let name = ["an unnamed", "a Unigram", "a BPE", "a word", "a character"];
            let name = usize::try_from(model_type).ok().and_then(|n| name.get(n)).unwrap_or(&name[0]);
            return Err(Refusal::Unsupported(format!("{name} model")));
        }
        Ok(model)
    }

    fn add_piece(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        for field in Fields::new(message) {
            match field? {
                (1, value) => value.text()?.clone_into(&mut piece.text),
                // Negative zero is zero.
                (2, value) => piece.score = value.float()? + 0.0,
                (3, value) => piece.kind = kind(value.integer()?)?,
                _ => {}
            }
        }
        let number = self.pieces.len();
        if number >= MAX_PIECES {
            return Err(Refusal::Malformed(format!("it has more than {MAX_PIECES} pieces")));
        }
        if piece.text.is_empty() {
            return Err(Refusal::Malformed(format!("piece {number} is empty")));
        }
        if piece.text.len() > MAX_PIECE_BYTES {
            return Err(Refusal::Malformed(format!("piece {number} is longer than {MAX_PIECE_BYTES} bytes")));
        }
        if piece.score.is_nan() {
            return Err(Refusal::Malformed(format!("the score of piece {number} is not a number")));
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn read_trainer(&mut self, message: &[u8], model_type: &mut u64) -> Result<(), Refusal> {
        for field in Fields::new(message) {
            match field? {
                (3, value) => *model_type = value.integer()?,
                (24, Value::Varint(1..)) => {
                    return Err(Refusal::Unsupported("treat_whitespace_as_suffix".to_owned()));
                }
                (35, value) => self.byte_fallback = value.integer()? != 0,
                (44, value) => value.text()?.clone_into(&mut self.unk_surface),
                (46, value) => value.text()?.clone_into(&mut self.bos_piece),
                (47, value) => value.text()?.clone_into(&mut self.eos_piece),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, message: &[u8]) -> Result<(), Refusal> {
        for field in Fields::new(message) {
            match field? {
                (2, value) => value.bytes()?.clone_into(&mut self.charsmap),
                (3, value) => self.add_dummy_prefix = value.integer()? != 0,
                (4, value) => self.remove_extra_whitespaces = value.integer()? != 0,
                (5, value) => self.escape_whitespaces = value.integer()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn refuse_denormalizer(message: &[u8]) -> Result<(), Refusal> {
    for field in Fields::new(message) {
        if let (2, Value::Bytes([_, ..])) = field? {
            return Err(Refusal::Unsupported("a denormalizer_spec with rules".to_owned()));
        }
    }
    Ok(())
}

fn kind(number: u64) -> Result<Kind, String> {
    Ok(match number {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        other => return Err(format!("a piece has the type {other}, which SentencePiece does not know")),
    })
}

/// Why a model file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is broken.
    Malformed(String),
    /// It is whole, and asks for what is not served.
    Unsupported(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Malformed(reason)
    }
}

//! `SentencePiece` byte-pair models: text to ids and back exactly as the library does it, so without the
//! detour over a list of merges, which cannot say what it does with equal scores and user-defined symbols.

mod charsmap;
mod detokenizer;
mod merge;
mod normalize;
mod proto;

use std::collections::{HashMap, HashSet};

use super::symbols::Symbols;
pub use detokenizer::PieceDetokenizer;
use merge::Vocabulary;
use normalize::Normalizer;
pub use proto::Refusal;
use proto::{Kind, ModelFile, Piece};

/// A `SentencePiece` model, ready for use.
#[derive(Debug)]
pub struct SentencePiece {
    pieces: Vec<Piece>,
    /// Pieces that text can become by merging.
    texts: HashMap<Box<str>, u32>,
    /// Control, unknown and byte pieces.
    reserved: HashMap<Box<str>, u32>,
    longest: usize,
    symbols: Symbols,
    normalizer: Normalizer,
    unknown: u32,
    bytes: Option<Vec<u32>>,
    unk_surface: String,
    strips_first_space: bool,
    strips_every_first_space: bool,
    bos: String,
    eos: String,
}

impl Vocabulary for SentencePiece {
    fn score(&self, piece: &str) -> Option<(f32, bool)> {
        if piece.len() > self.longest {
            return None;
        }
        let piece = self.pieces.get(*self.texts.get(piece)? as usize)?;
        Some((piece.score, piece.kind == Kind::Unused))
    }
}

/// The same vocabulary without some of its pieces.
struct Without<'a>(&'a SentencePiece, &'a HashSet<u32>);

impl Vocabulary for Without<'_> {
    fn score(&self, piece: &str) -> Option<(f32, bool)> {
        let known = self.0.score(piece)?;
        self.0.texts.get(piece).is_none_or(|id| !self.1.contains(id)).then_some(known)
    }
}

impl SentencePiece {
    /// Reads the bytes of a `tokenizer.model`.
    ///
    /// # Errors
    /// A file that is malformed, or asks for what is not served.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let model = ModelFile::read(bytes)?;
        let normalizer = Normalizer::new(&model)?;
        let (mut texts, mut reserved) = (HashMap::<Box<str>, u32>::new(), HashMap::<Box<str>, u32>::new());
        let mut unknown = None;
        for (id, piece) in (0u32..).zip(&model.pieces) {
            let text = Box::from(piece.text.as_str());
            let map = match piece.kind {
                Kind::Normal | Kind::UserDefined | Kind::Unused => &mut texts,
                Kind::Unknown | Kind::Control | Kind::Byte => &mut reserved,
            };
            if map.insert(text, id).is_some() {
                return Err(Refusal::Malformed(format!("the piece {:?} occurs twice", piece.text)));
            }
            if piece.kind == Kind::Unknown && unknown.replace(id).is_some() {
                return Err(Refusal::Malformed("it has two unknown pieces".to_owned()));
            }
        }
        let unknown = unknown.ok_or_else(|| Refusal::Malformed("it has no unknown piece".to_owned()))?;
        let bytes = model.byte_fallback.then(|| byte_ids(&model.pieces, &reserved)).transpose()?;
        let defined = (0u32..).zip(&model.pieces).filter(|(_, piece)| piece.kind == Kind::UserDefined);
        Ok(Self {
            longest: texts.keys().map(|text| text.len()).max().unwrap_or(0),
            symbols: Symbols::new(defined.map(|(id, piece)| (Box::from(piece.text.as_str()), id))),
            texts,
            reserved,
            normalizer,
            unknown,
            bytes,
            unk_surface: model.unk_surface,
            strips_first_space: model.add_dummy_prefix || model.remove_extra_whitespaces,
            strips_every_first_space: model.remove_extra_whitespaces,
            bos: model.bos_piece,
            eos: model.eos_piece,
            pieces: model.pieces,
        })
    }

    /// The ids of `text`, in which nothing is special but user-defined symbols outside `forbidden`; no id of
    /// `forbidden` comes out. `prefix` overrides whether a space is put in front.
    pub fn encode(&self, text: &str, prefix: Option<bool>, forbidden: &HashSet<u32>, ids: &mut Vec<u32>) {
        let admitted = |id: u32| !forbidden.contains(&id);
        let text = self.normalizer.normalize(text, prefix, &self.symbols, admitted);
        self.encode_normalized(&text, forbidden, ids);
    }

    /// The ids of the space that comes in front of a text which begins with a token. `prefix` as in [`Self::encode`].
    pub fn encode_prefix(&self, prefix: Option<bool>, ids: &mut Vec<u32>) {
        if let Some(space) = self.normalizer.prefix(prefix) {
            self.encode_normalized(space, &HashSet::new(), ids);
        }
    }

    fn encode_normalized(&self, text: &str, forbidden: &HashSet<u32>, ids: &mut Vec<u32>) {
        let admitted = |id: u32| !forbidden.contains(&id);
        let mut after_unknown = false;
        for piece in merge::merge(text, &Without(self, forbidden), &self.symbols, admitted) {
            let id = self.text_id(piece).filter(|id| admitted(*id)).unwrap_or(self.unknown);
            let is_unknown = id == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => {
                    ids.extend(piece.bytes().filter_map(|byte| bytes.get(usize::from(byte))));
                }
                _ if is_unknown && after_unknown => {}
                _ => ids.push(id),
            }
            after_unknown = is_unknown;
        }
    }

    fn text_id(&self, piece: &str) -> Option<u32> {
        self.reserved.get(piece).or_else(|| self.texts.get(piece)).copied()
    }

    /// The id of a piece by its exact string.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.text_id(piece)
    }

    /// The string of a piece.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|piece| piece.text.as_str())
    }

    /// Number of pieces.
    pub fn size(&self) -> usize {
        self.pieces.len()
    }

    /// Whether a piece shows text: its own or a byte.
    pub fn shows(&self, id: u32) -> bool {
        self.pieces.get(id as usize).is_some_and(|piece| !matches!(piece.kind, Kind::Control | Kind::Unknown))
    }

    /// The string of the piece that starts a text, whether or not the vocabulary has it.
    pub fn bos(&self) -> &str {
        &self.bos
    }

    /// The string of the piece that ends a text, whether or not the vocabulary has it.
    pub fn eos(&self) -> &str {
        &self.eos
    }

    /// Pieces that a person's text must not become: control pieces, the unknown one, and user-defined
    /// symbols in angle or square brackets (`<|im_start|>`, `[INST]`).
    pub fn steering(&self) -> impl Iterator<Item = (&str, u32)> {
        let steers = |piece: &Piece| match piece.kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => {
                ["<>", "[]"].iter().any(|pair| piece.text.starts_with(&pair[..1]) && piece.text.ends_with(&pair[1..]))
            }
            Kind::Normal | Kind::Unused | Kind::Byte => false,
        };
        (0u32..).zip(&self.pieces).filter(move |(_, piece)| steers(piece)).map(|(id, piece)| (&*piece.text, id))
    }

    /// Whether the library lets a user-defined symbol be found in text by itself.
    pub fn finds_itself(&self, id: u32) -> bool {
        self.pieces.get(id as usize).is_some_and(|piece| piece.kind == Kind::UserDefined)
    }
}

/// The pieces of all 256 bytes.
fn byte_ids(pieces: &[Piece], reserved: &HashMap<Box<str>, u32>) -> Result<Vec<u32>, Refusal> {
    let id = |byte: u8| {
        let name = format!("<0x{byte:02X}>");
        let id = reserved.get(name.as_str()).copied();
        let id = id.filter(|id| pieces.get(*id as usize).is_some_and(|piece| piece.kind == Kind::Byte));
        id.ok_or_else(|| Refusal::Malformed(format!("it falls back to bytes but has no piece {name}")))
    };
    (0..=u8::MAX).map(id).collect()
}

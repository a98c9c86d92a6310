//! A checkpoint's `tokenizer.model` together with the tokens that the files beside it add, as the
//! Llama and `InternLM2` tokenizers of transformers put them together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Protected;
use super::added::{Added, Part};
use super::files::{self, AddedToken, TokenizerConfig};
use super::sentencepiece::{PieceDetokenizer, Refusal, SentencePiece};
use super::shown::{Shown, of_piece};
use crate::checkpoint::CheckpointError;

/// The file.
pub const FILE: &str = "tokenizer.model";

/// `SentencePiece` with added tokens.
pub struct Pieces {
    model: Arc<SentencePiece>,
    added: Added,
    /// User-defined symbols that the model file has besides.
    steering: Added,
    /// Added tokens that a checkpoint names for a purpose; no space comes in front of a text that begins so.
    named: HashSet<u32>,
    /// What the added tokens show in an answer.
    shown: Arc<HashMap<u32, String>>,
    forbidden: HashSet<u32>,
    prefix: Prefix,
    bos: Option<u32>,
    eos: Option<u32>,
}

/// Where a text gets the space that `SentencePiece` puts in front.
#[derive(Clone, Copy, Debug)]
enum Prefix {
    /// Each stretch between added tokens by itself, as the model file says ("legacy" in transformers).
    Every,
    /// Where it is true, the text as a whole, unless it begins with a token that is named for a purpose.
    First(bool),
}

impl Pieces {
    /// Reads `tokenizer.model` in `dir` and the files beside it; `None` where there is no such file.
    /// With it come the strings that start and end a text.
    ///
    /// # Errors
    /// A malformed file, or a model that is not served.
    pub fn read(dir: &Path) -> Result<Option<(Self, String, String)>, CheckpointError> {
        let Some(bytes) = files::read(dir, FILE)? else { return Ok(None) };
        let model = SentencePiece::read(&bytes).map_err(|refusal| match refusal {
            Refusal::Malformed(reason) => CheckpointError::json(&dir.join(FILE), &reason),
            Refusal::Unsupported(what) => CheckpointError::Unsupported {
                file: FILE,
                what,
                supported: "BPE models with normalisation rules and byte fallback",
            },
        })?;
        let config = TokenizerConfig::read(dir, |token| model.id(token))?;
        let bos = config.bos.unwrap_or_else(|| model.bos().to_owned());
        let eos = config.eos.unwrap_or_else(|| model.eos().to_owned());
        let prefix = match config.legacy {
            Some(false) => Prefix::First(config.add_prefix_space.unwrap_or(true)),
            _ => Prefix::Every,
        };
        let added = Added::new(all_added(&model, config.added));
        let shown = |token: &AddedToken| if token.special { String::new() } else { token.content.clone() };
        let id = |token: &str| added.id(token).or_else(|| model.id(token));
        let pieces = Self {
            shown: Arc::new(added.tokens().iter().map(|(id, token)| (*id, shown(token))).collect()),
            named: config.named.iter().filter_map(|token| id(token)).collect(),
            steering: Added::new(
                model
                    .steering()
                    .filter(|(piece, id)| model.finds_itself(*id) && added.id(piece).is_none())
                    .map(|(piece, id)| (id, AddedToken { content: piece.to_owned(), ..AddedToken::default() }))
                    .collect(),
            ),
            forbidden: added.tokens().keys().copied().chain(model.steering().map(|(_, id)| id)).collect(),
            prefix,
            bos: id(&bos).filter(|_| config.add_bos.unwrap_or(true)),
            eos: id(&eos).filter(|_| config.add_eos.unwrap_or(false)),
            added,
            model: Arc::new(model),
        };
        Ok(Some((pieces, bos, eos)))
    }

    /// Strings that a person's text must not become.
    pub fn special(&self) -> impl Iterator<Item = &str> {
        let added = self.added.tokens().values().map(|token| token.content.as_str());
        added.chain(self.model.steering().map(|(piece, _)| piece))
    }

    /// The id of a token by its exact string.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.model.id(token))
    }

    /// The string of a token by its id.
    pub fn token(&self, id: u32) -> Option<String> {
        let added = self.added.get(id).map(|token| token.content.as_str());
        added.or_else(|| self.model.piece(id)).map(str::to_owned)
    }

    /// Number of ids.
    pub fn size(&self) -> usize {
        let added = self.added.tokens().keys().max().map_or(0, |id| *id as usize + 1);
        self.model.size().max(added)
    }

    /// What a token stands for.
    pub fn shown(&self, id: u32) -> Option<Shown> {
        if let Some(token) = self.added.get(id) {
            let content = token.content.clone();
            return Some(if token.special { Shown::Special(content) } else { Shown::Bytes(content.into_bytes()) });
        }
        let piece = self.model.piece(id)?;
        Some(if self.model.shows(id) { Shown::Bytes(of_piece(piece)) } else { Shown::Special(piece.to_owned()) })
    }

    /// Ids of `rendered`, in which what `protected` holds stays text.
    pub fn encode(&self, rendered: &str, protected: &Protected<'_>, has_bos: bool) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.filter(|_| !has_bos).into_iter().collect();
        for (number, part) in self.added.split(rendered).into_iter().enumerate() {
            let prefix = match self.prefix {
                Prefix::Every => None,
                Prefix::First(first) => Some(first && number == 0),
            };
            match part {
                Part::Token(id) => {
                    if prefix == Some(true) && !self.named.contains(&id) {
                        self.model.encode_prefix(prefix, &mut ids);
                    }
                    ids.push(id);
                }
                Part::Text(text) => self.encode_text(text, prefix, protected, &mut ids),
            }
        }
        ids.extend(self.eos);
        ids
    }

    fn encode_text(&self, text: &str, prefix: Option<bool>, protected: &Protected<'_>, ids: &mut Vec<u32>) {
        let restored = protected.restore(text);
        if restored == text {
            return self.model.encode(text, prefix, &HashSet::new(), ids);
        }
        // What the template wrote is still found; what a person wrote is not.
        for (number, part) in self.steering.split(text).into_iter().enumerate() {
            let prefix = if number == 0 { prefix } else { Some(false) };
            match part {
                Part::Token(id) => {
                    self.model.encode_prefix(prefix, ids);
                    ids.push(id);
                }
                Part::Text(text) => self.model.encode(&protected.restore(text), prefix, &self.forbidden, ids),
            }
        }
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> PieceDetokenizer {
        PieceDetokenizer::new(Arc::clone(&self.model), Arc::clone(&self.shown))
    }
}

/// The added tokens of the files and those that the model file has itself. User-defined symbols are found by
/// the model, unless a file gives them flags.
fn all_added(model: &SentencePiece, named: BTreeMap<u32, AddedToken>) -> BTreeMap<u32, AddedToken> {
    let mut added = named;
    added.retain(|id, token| {
        let same = model.piece(*id) == Some(token.content.as_str());
        token.lstrip || token.rstrip || token.special || token.single_word || !(same && model.finds_itself(*id))
    });
    let present: HashSet<String> = added.values().map(|token| token.content.clone()).collect();
    for (piece, id) in model.steering().filter(|(piece, id)| !model.finds_itself(*id) && !present.contains(*piece)) {
        let token = AddedToken { content: piece.to_owned(), special: true, ..AddedToken::default() };
        added.entry(id).or_insert(token);
    }
    added
}

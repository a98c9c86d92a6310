//! Text to token ids and back, from the checkpoint's `tokenizer.json` or `SentencePiece` `tokenizer.model`.
//! Text of a person never becomes a special token, whatever it spells.

mod added;
mod byte_level;
mod detokenizer;
mod files;
mod json;
mod pieces;
mod protect;
mod sentencepiece;
mod shown;
mod symbols;
mod utf8;
mod window;
mod wire;

use std::path::Path;

pub use detokenizer::Detokenizer;
pub use protect::Protected;
pub use shown::Shown;

use self::files::TokenizerConfig;
use self::json::Json;
use self::pieces::Pieces;
use crate::checkpoint::{Checkpoint, CheckpointError};

/// Turns text into ids and ids into text, as the checkpoint's files say.
pub struct Tokenizer {
    engine: Engine,
    /// Contents of the tokens that no person's text may become, longest first.
    special: Vec<String>,
    bos: Option<String>,
    eos: Option<String>,
}

enum Engine {
    Json(Box<Json>),
    Pieces(Box<Pieces>),
}

impl Tokenizer {
    /// Reads the tokenizer of `checkpoint`: `tokenizer.json` where there is one, else the `SentencePiece` model
    /// `tokenizer.model`; with them `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// [`CheckpointError::NoTokenizer`] when there is neither; a malformed file; a model that is not served.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        Self::open_in(&checkpoint.path(""))
    }

    pub(crate) fn open_in(dir: &Path) -> Result<Self, CheckpointError> {
        let (engine, bos, eos) = if let Some(json) = Json::read(dir)? {
            let config = TokenizerConfig::read(dir, |token| json.whole.token_to_id(token))?;
            let bos = config.bos.or_else(|| json.first());
            (Engine::Json(Box::new(json)), bos, config.eos)
        } else if let Some((pieces, bos, eos)) = Pieces::read(dir)? {
            (Engine::Pieces(Box::new(pieces)), Some(bos), Some(eos))
        } else {
            return Err(CheckpointError::NoTokenizer { dir: dir.to_owned() });
        };
        let special: Vec<String> = match &engine {
            Engine::Json(json) => json.special().map(str::to_owned).collect(),
            Engine::Pieces(pieces) => pieces.special().map(str::to_owned).collect(),
        };
        let mut tokenizer = Self { engine, special: Vec::new(), bos, eos };
        tokenizer.reserve(special);
        Ok(tokenizer)
    }

    /// The string that starts a text, if the checkpoint names one or puts one there.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The string that ends a text, if the checkpoint names one.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// The id of a token by its exact string.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.engine {
            Engine::Json(json) => json.whole.token_to_id(token),
            Engine::Pieces(pieces) => pieces.id(token),
        }
    }

    /// The string of a token by its id.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.engine {
            Engine::Json(json) => json.whole.id_to_token(id),
            Engine::Pieces(pieces) => pieces.token(id),
        }
    }

    /// From now on no person's text becomes one of `strings` either, which need not be tokens.
    pub fn reserve(&mut self, strings: impl IntoIterator<Item = String>) {
        self.special.extend(strings);
        self.special.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.special.dedup();
    }

    /// A place that collects a person's texts on their way through a template.
    pub fn protect(&self) -> Protected<'_> {
        Protected::new(&self.special)
    }

    /// Token ids of `rendered`. As transformers does, the tokens that belong around a text (BOS) are added
    /// unless the text starts with BOS already. What `protected` holds stays text.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, rendered: &str, protected: &Protected<'_>) -> Result<Vec<u32>, tokenizers::Error> {
        let has_bos = self.bos.as_deref().is_some_and(|bos| !bos.is_empty() && rendered.starts_with(bos));
        self.encode_piece(rendered, protected, has_bos)
    }

    /// Token ids of a text that is tokenised by itself but stands behind another one: nothing is added before it.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode_next(&self, rendered: &str, protected: &Protected<'_>) -> Result<Vec<u32>, tokenizers::Error> {
        self.encode_piece(rendered, protected, true)
    }

    fn encode_piece(
        &self,
        rendered: &str,
        protected: &Protected<'_>,
        has_bos: bool,
    ) -> Result<Vec<u32>, tokenizers::Error> {
        match &self.engine {
            Engine::Json(json) => json.encode(rendered, protected, has_bos),
            Engine::Pieces(pieces) => Ok(pieces.encode(rendered, protected, has_bos)),
        }
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer {
        match &self.engine {
            Engine::Json(json) => Detokenizer::of_json(&json.whole),
            Engine::Pieces(pieces) => Detokenizer::of_pieces(pieces.detokenizer()),
        }
    }
}

#[cfg(test)]
mod tests;

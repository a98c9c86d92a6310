//! Where pictures stand in a rendered prompt: which strings mark them, what the tokenizer gets in their place,
//! and the id that stands for one row of visual features. Every id is found by its string.

use std::sync::Arc;

use vlm_catalog::architecture::{Dialect, Family, ModelConfig};

use super::PromptError;
use crate::checkpoint::CheckpointError;
use crate::image::PreparedImage;
use crate::tokenizer::{Protected, Tokenizer};

/// What templates and callers write where a picture goes, whatever the family.
pub const MARK: &str = "<image>";
/// What `InternVL` has for one row of visual features.
pub const ROW: &str = "<IMG_CONTEXT>";
/// What it has before the rows of a picture.
pub const BEGIN: &str = "<img>";
/// And behind them.
pub const END: &str = "</img>";

/// How one checkpoint's prompts show pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The strings that mark a picture.
    marks: Vec<String>,
    /// What the tokenizer gets in their place: the token of one row, and what stands around the rows. `None`
    /// where the tokenizer has no such token; the text is then cut at the marks.
    shown: Option<String>,
    /// The id of one row.
    id: u32,
}

impl Places {
    /// Those of a model with this tokenizer.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] when `config.json` names an id that no token has,
    /// [`CheckpointError::NoImageTokens`] when the tokenizer lacks the tokens of pictures.
    pub fn resolve(config: &ModelConfig, tokenizer: &Tokenizer) -> Result<Self, CheckpointError> {
        if config.family == Family::InternVl {
            let missing: Vec<&str> =
                [BEGIN, ROW, END].into_iter().filter(|token| tokenizer.id(token).is_none()).collect();
            return match tokenizer.id(ROW) {
                Some(id) if missing.is_empty() => Ok(Self {
                    marks: vec![MARK.to_owned(), ROW.to_owned()],
                    shown: Some([BEGIN, ROW, END].concat()),
                    id,
                }),
                _ => Err(CheckpointError::NoImageTokens { missing: missing.join(", ") }),
            };
        }
        let named = match config.image_token_id {
            Some(id) => Some((id, tokenizer.token(id).ok_or_else(|| unknown(id))?)),
            None => tokenizer.id(MARK).map(|id| (id, MARK.to_owned())),
        };
        match named {
            Some((id, token)) => {
                let mut marks = vec![token.clone(), MARK.to_owned()];
                marks.dedup();
                Ok(Self { marks, shown: Some(token), id })
            }
            // The original tokenizers know no pictures: their code cuts the text at the marks.
            None if config.dialect == Dialect::Original => {
                let id = (config.text.vocab_size as u32..=u32::MAX).find(|id| tokenizer.token(*id).is_none());
                Ok(Self { marks: vec![MARK.to_owned()], shown: None, id: id.unwrap_or(u32::MAX) })
            }
            None => Err(CheckpointError::NoImageTokens { missing: MARK.to_owned() }),
        }
    }

    /// The id that stands for one row of visual features; at least the vocabulary's size where no token does.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Strings to which a prompt gives a meaning, so that no person's text may become them.
    pub fn reserved(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().map(String::as_str).chain([BEGIN, END])
    }

    /// Token ids of `text`, in which each mark is a picture and takes as many ids as that has rows.
    ///
    /// # Errors
    /// When marks and pictures differ in number, or the tokenizer refuses the text.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        protected: &Protected<'_>,
        images: &[Arc<PreparedImage>],
    ) -> Result<Vec<u32>, PromptError> {
        let pieces = self.cut(text);
        let places = pieces.len() - 1;
        if places != images.len() {
            return Err(PromptError::ImageCount { images: images.len(), places });
        }
        let refused = |e: tokenizers::Error| PromptError::Tokenize { reason: e.to_string() };
        let Some(shown) = &self.shown else {
            let mut ids = tokenizer.encode(pieces[0], protected).map_err(refused)?;
            for (piece, image) in pieces[1..].iter().zip(images) {
                ids.extend(std::iter::repeat_n(self.id, image.tokens));
                ids.extend(tokenizer.encode_next(piece, protected).map_err(refused)?);
            }
            return Ok(ids);
        };
        let ids = tokenizer.encode(&pieces.join(shown), protected).map_err(refused)?;
        if ids.iter().filter(|id| **id == self.id).count() != places {
            let reason = format!("{shown} does not become the token with the id {}", self.id);
            return Err(PromptError::Tokenize { reason });
        }
        let mut rows = images.iter().map(|image| image.tokens);
        let times = |id: &u32| if *id == self.id { rows.next().unwrap_or(0) } else { 1 };
        let times: Vec<usize> = ids.iter().map(times).collect();
        Ok(ids.into_iter().zip(times).flat_map(|(id, times)| std::iter::repeat_n(id, times)).collect())
    }

    /// `text` cut at the marks; always at least one piece.
    fn cut<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let (mut pieces, mut from) = (Vec::new(), 0);
        let marks = || self.marks.iter().filter(|mark| !mark.is_empty());
        // The first in the text, and of several there the first in the list.
        let next = |from: usize| {
            marks().filter_map(|mark| Some((text[from..].find(mark.as_str())?, mark.len()))).min_by_key(|(at, _)| *at)
        };
        while let Some((at, len)) = next(from) {
            pieces.push(&text[from..from + at]);
            from += at + len;
        }
        pieces.push(&text[from..]);
        pieces
    }
}

fn unknown(id: u32) -> CheckpointError {
    CheckpointError::Unsupported {
        file: "config.json",
        what: format!("image_token_index {id}, which the tokenizer lacks"),
        supported: "the id of a token of tokenizer.json or tokenizer.model",
    }
}

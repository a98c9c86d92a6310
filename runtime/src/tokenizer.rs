//! Text to token ids and back, from the checkpoint's `tokenizer.json`. Text of a person never
//! becomes a special token, whatever it spells.

mod detokenizer;
mod protect;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use detokenizer::Detokenizer;
pub use protect::Protected;

use crate::checkpoint::{Checkpoint, CheckpointError};

const FILE: &str = "tokenizer.json";

/// A tokenizer in its two moods: special tokens recognised, and everything plain text.
pub struct Tokenizer {
    whole: Arc<tokenizers::Tokenizer>,
    plain: tokenizers::Tokenizer,
    /// Contents and ids of the added tokens, longest first.
    added: Vec<(String, u32)>,
    bos: Option<String>,
    eos: Option<String>,
}

/// The fields of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Described { content: String },
}

impl TokenName {
    fn content(self) -> String {
        match self {
            Self::Plain(content) | Self::Described { content } => content,
        }
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if present, `tokenizer_config.json`.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let path = checkpoint.path(FILE);
        let missing = || CheckpointError::not_found(&path, std::io::ErrorKind::NotFound.into());
        let mut json: Value = checkpoint.json(FILE)?.ok_or_else(missing)?;
        let malformed = |e: tokenizers::Error| CheckpointError::json(&path, &e);
        let whole = read(&json).map_err(malformed)?;
        if let Some(object) = json.as_object_mut() {
            object.insert("added_tokens".to_owned(), Value::Array(Vec::new()));
            object.insert("post_processor".to_owned(), Value::Null);
        }
        let plain = read(&json).map_err(malformed)?;
        let mut added: Vec<(String, u32)> =
            whole.get_added_tokens_decoder().into_iter().map(|(id, token)| (token.content, id)).collect();
        added.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        let config: RawConfig = checkpoint.json("tokenizer_config.json")?.unwrap_or_default();
        let (bos, eos) = (config.bos_token.map(TokenName::content), config.eos_token.map(TokenName::content));
        Ok(Self { whole: Arc::new(whole), plain, added, bos, eos })
    }

    /// The string that starts a text, if the checkpoint names one.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The string that ends a text, if the checkpoint names one.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// The id of a token by its exact string.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.whole.token_to_id(token)
    }

    /// The string of a token by its id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.whole.id_to_token(id)
    }

    /// A place that collects a person's texts on their way through a template.
    pub fn protect(&self) -> Protected<'_> {
        Protected::new(&self.added)
    }

    /// Token ids of `rendered`. As transformers does, the post-processor's tokens (BOS) are added
    /// unless the text starts with BOS already. What `protected` holds stays text.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, rendered: &str, protected: &Protected<'_>) -> Result<Vec<u32>, tokenizers::Error> {
        let has_bos = self.bos.as_deref().is_some_and(|bos| !bos.is_empty() && rendered.starts_with(bos));
        if protected.is_empty() {
            return Ok(self.whole.encode(rendered, !has_bos)?.get_ids().to_vec());
        }
        let mut ids = if has_bos { Vec::new() } else { self.whole.encode("", true)?.get_ids().to_vec() };
        let mut rest = rendered;
        while !rest.is_empty() {
            let next = self.next_added(rest);
            let end = next.map_or(rest.len(), |(start, _, _)| start);
            self.encode_plain(&protected.restore(&rest[..end]), &mut ids)?;
            let Some((start, len, id)) = next else { break };
            ids.push(id);
            rest = &rest[start + len..];
        }
        Ok(ids)
    }

    /// Start, length and id of the first added token in `text`; the longest where several start.
    fn next_added(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found =
            self.added.iter().filter_map(|(content, id)| Some((text.find(content.as_str())?, content.len(), *id)));
        found.min_by_key(|(start, len, _)| (*start, usize::MAX - len))
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), tokenizers::Error> {
        if text.is_empty() {
            return Ok(());
        }
        let encoded = self.plain.encode(text, false)?;
        if !encoded.get_ids().iter().any(|id| self.is_added(*id)) {
            ids.extend(encoded.get_ids());
            return Ok(());
        }
        // The vocabulary itself can spell an added token; no single character does.
        for character in text.chars() {
            let encoded = self.plain.encode(character.to_string(), false)?;
            ids.extend(encoded.get_ids().iter().filter(|id| !self.is_added(**id)));
        }
        Ok(())
    }

    fn is_added(&self, id: u32) -> bool {
        self.added.iter().any(|(_, added)| *added == id)
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(Arc::clone(&self.whole))
    }
}

fn read(json: &Value) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    let mut tokenizer: tokenizers::Tokenizer = serde_json::from_value(json.clone())?;
    // A file saved after training may cut or fill; a prompt must be taken as it is.
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;

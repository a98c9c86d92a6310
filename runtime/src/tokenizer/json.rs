//! `tokenizer.json` by the `tokenizers` crate, checked first for what that crate would not survive.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::Protected;
use super::added::{Added, Part};
use super::files::{self, AddedToken};
use crate::checkpoint::CheckpointError;

/// The file.
pub const FILE: &str = "tokenizer.json";

/// A tokenizer in its moods: special tokens recognised, and everything plain text.
pub struct Json {
    pub(super) whole: Arc<tokenizers::Tokenizer>,
    pub(super) plain: tokenizers::Tokenizer,
    /// For text that does not come first, where that makes a difference.
    later: Option<tokenizers::Tokenizer>,
    added: Added,
}

impl Json {
    /// Reads `tokenizer.json` in `dir`; `None` where there is no such file.
    ///
    /// # Errors
    /// A malformed file.
    pub fn read(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let Some(mut json) = files::json::<Value>(dir, FILE)? else { return Ok(None) };
        let malformed = |reason: String| CheckpointError::json(&dir.join(FILE), &reason);
        check(&json).map_err(malformed)?;
        let whole = build(&json).map_err(malformed)?;
        if let Some(object) = json.as_object_mut() {
            object.insert("added_tokens".to_owned(), Value::Array(Vec::new()));
            object.insert("post_processor".to_owned(), Value::Null);
        }
        let plain = build(&json).map_err(malformed)?;
        let later = match json.pointer_mut("/pre_tokenizer/prepend_scheme") {
            Some(scheme) if scheme == "first" => {
                *scheme = Value::from("never");
                Some(build(&json).map_err(malformed)?)
            }
            _ => None,
        };
        let token = |token: tokenizers::AddedToken| AddedToken {
            content: token.content,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            single_word: token.single_word,
            special: token.special,
        };
        let added = whole.get_added_tokens_decoder().into_iter().map(|(id, added)| (id, token(added)));
        let added = Added::new(added.collect());
        Ok(Some(Self { whole: Arc::new(whole), plain, later, added }))
    }

    /// Strings that a person's text must not become.
    pub fn special(&self) -> impl Iterator<Item = &str> {
        self.added.tokens().values().map(|token| token.content.as_str())
    }

    /// The token that is put before every text, if one is.
    pub fn first(&self) -> Option<String> {
        let first = |special| self.whole.encode_fast("a", special).ok()?.get_ids().first().copied();
        let id = first(true)?;
        self.whole.id_to_token(id).filter(|_| Some(id) != first(false))
    }

    /// Ids of `rendered`, in which what `protected` holds stays text.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(
        &self,
        rendered: &str,
        protected: &Protected<'_>,
        has_bos: bool,
    ) -> Result<Vec<u32>, tokenizers::Error> {
        if protected.is_empty() {
            return Ok(self.whole.encode_fast(rendered, !has_bos)?.get_ids().to_vec());
        }
        let mut ids = if has_bos { Vec::new() } else { self.whole.encode_fast("", true)?.get_ids().to_vec() };
        for (number, part) in self.added.split(rendered).into_iter().enumerate() {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let tokenizer = self.later.as_ref().filter(|_| number > 0).unwrap_or(&self.plain);
                    self.encode_plain(tokenizer, &protected.restore(text), &mut ids)?;
                }
            }
        }
        Ok(ids)
    }

    fn encode_plain(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), tokenizers::Error> {
        if text.is_empty() {
            return Ok(());
        }
        let encoded = tokenizer.encode_fast(text, false)?;
        if !encoded.get_ids().iter().any(|id| self.added.get(*id).is_some()) {
            ids.extend(encoded.get_ids());
            return Ok(());
        }
        // The vocabulary itself can spell an added token; no single character does.
        for character in text.chars() {
            let encoded = tokenizer.encode_fast(character.to_string(), false)?;
            ids.extend(encoded.get_ids().iter().filter(|id| self.added.get(**id).is_none()));
        }
        Ok(())
    }
}

fn build(json: &Value) -> Result<tokenizers::Tokenizer, String> {
    // What the checks do not foresee must not end the process either.
    let built = catch_unwind(AssertUnwindSafe(|| -> Result<_, tokenizers::Error> {
        let mut tokenizer: tokenizers::Tokenizer = serde_json::from_value(json.clone())?;
        // A file saved after training may cut or fill; a prompt must be taken as it is.
        tokenizer.with_truncation(None)?;
        tokenizer.with_padding(None);
        Ok(tokenizer)
    }));
    match built {
        Ok(built) => built.map_err(|e| e.to_string()),
        Err(_) => Err("its values contradict each other".to_owned()),
    }
}

/// Refuses values on which the `tokenizers` crate panics: a merge whose result is no piece, and a decoder
/// that strips characters from the end of pieces that may have none.
fn check(json: &Value) -> Result<(), String> {
    check_decoder(&json["decoder"])?;
    let model = &json["model"];
    if !matches!(model["type"].as_str(), None | Some("BPE")) {
        return Ok(());
    }
    for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[field].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(format!("model.{field} is not served (supported: none)"));
        }
    }
    let Some(vocab) = model["vocab"].as_object() else { return Ok(()) };
    let ids: HashSet<u64> = vocab.values().filter_map(Value::as_u64).collect();
    if ids.len() != vocab.len() {
        return Err("model.vocab gives two pieces one id, or an id that is no number".to_owned());
    }
    for (number, merge) in model["merges"].as_array().into_iter().flatten().enumerate() {
        let sides = match merge {
            Value::String(line) => line.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (a, b) = sides.ok_or_else(|| format!("model.merges[{number}] is not a pair of pieces"))?;
        if [a, b, &[a, b].concat()].into_iter().any(|piece| !vocab.contains_key(piece)) {
            return Err(format!("model.merges[{number}] joins {a:?} and {b:?}, which are not all in the vocabulary"));
        }
    }
    Ok(())
}

fn check_decoder(decoder: &Value) -> Result<(), String> {
    if decoder["type"] == "Strip" && decoder["stop"].as_u64() != Some(0) {
        return Err("a decoder strips the end of pieces, which is not served (stop must be 0)".to_owned());
    }
    decoder["decoders"].as_array().into_iter().flatten().try_for_each(check_decoder)
}

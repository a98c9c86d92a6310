//! The small files beside a tokenizer that say which tokens are added and what stands around a text:
//! `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::CheckpointError;

/// Bytes that a file of the tokenizer may have; the largest published has 35 million.
const MAX_BYTES: u64 = 256 << 20;
/// Tokens that a checkpoint may add.
const MAX_ADDED: usize = 1 << 16;

/// `name` in `dir`, if it is there.
///
/// # Errors
/// When it cannot be read or is larger than a tokenizer can be.
pub fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
    let path = dir.join(name);
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CheckpointError::not_found(&path, e)),
        // Opening a pipe would wait for its other end.
        Ok(meta) if !meta.is_file() => return Err(CheckpointError::json(&path, &"it is not a regular file")),
        Ok(meta) if meta.len() > MAX_BYTES => {
            let reason = format!("it has {} bytes, more than the {MAX_BYTES} that are read", meta.len());
            return Err(CheckpointError::json(&path, &reason));
        }
        Ok(_) => {}
    }
    std::fs::read(&path).map(Some).map_err(|e| CheckpointError::not_found(&path, e))
}

/// `name` in `dir` as JSON, if it is there.
///
/// # Errors
/// As [`read`], or when it does not parse.
pub fn json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, CheckpointError> {
    let Some(bytes) = read(dir, name)? else { return Ok(None) };
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let malformed = |e: &dyn std::fmt::Display| CheckpointError::json(&dir.join(name), &e);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| malformed(&e))?;
    json.end().map_err(|e| malformed(&e))?;
    Ok(Some(value))
}

/// A token that is written as a string or with its flags.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Described(AddedToken),
}

/// A string that stands for one token wherever it occurs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the flags as the files have them")]
pub struct AddedToken {
    /// The string.
    pub content: String,
    /// Takes the white space before it along.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the white space behind it along.
    #[serde(default)]
    pub rstrip: bool,
    /// Is one only where no letter or digit touches it.
    #[serde(default)]
    pub single_word: bool,
    /// Shows no text in an answer.
    #[serde(default)]
    pub special: bool,
}

impl TokenName {
    fn token(self) -> AddedToken {
        match self {
            Self::Plain(content) => AddedToken { content, ..AddedToken::default() },
            Self::Described(token) => token,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawConfig {
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    unk_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    #[serde(deserialize_with = "names")]
    additional_special_tokens: Vec<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    add_prefix_space: Option<bool>,
    legacy: Option<bool>,
}

fn names<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<TokenName>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What those files say together.
#[derive(Debug, Default)]
pub struct TokenizerConfig {
    /// Added tokens by id.
    pub added: BTreeMap<u32, AddedToken>,
    /// Strings that are named for a purpose (start, end, padding, "additional special").
    pub named: Vec<String>,
    /// The string that starts a text.
    pub bos: Option<String>,
    /// The string that ends a text.
    pub eos: Option<String>,
    /// Whether the first comes before every text.
    pub add_bos: Option<bool>,
    /// Whether the second comes behind every text.
    pub add_eos: Option<bool>,
    /// Whether text that stands behind a special token begins with a space piece as a text does, and
    /// other early behaviour of the Llama tokenizer.
    pub legacy: Option<bool>,
    /// Whether a text begins with a space piece, where that is not legacy.
    pub add_prefix_space: Option<bool>,
}

impl TokenizerConfig {
    /// Reads the files in `dir`; those that are missing say nothing. As in transformers,
    /// `added_tokens_decoder` says it all where it is given; otherwise `added_tokens.json` gives the ids
    /// and `special_tokens_map.json` the flags.
    ///
    /// # Errors
    /// A malformed file. `id` finds the id of a string in the vocabulary.
    pub fn read(dir: &Path, id: impl Fn(&str) -> Option<u32>) -> Result<Self, CheckpointError> {
        let config: RawConfig = json(dir, "tokenizer_config.json")?.unwrap_or_default();
        let map: RawConfig = json(dir, "special_tokens_map.json")?.unwrap_or_default();
        let ids: BTreeMap<String, u32> = json(dir, "added_tokens.json")?.unwrap_or_default();
        let mut added = config.added_tokens_decoder;
        let bos = config.bos_token.or(map.bos_token).map(TokenName::token);
        let eos = config.eos_token.or(map.eos_token).map(TokenName::token);
        let others = [config.unk_token.or(map.unk_token), config.pad_token.or(map.pad_token)];
        let others = others.into_iter().flatten().chain(config.additional_special_tokens);
        let others = others.chain(map.additional_special_tokens).map(TokenName::token);
        let purposes: Vec<AddedToken> = bos.iter().chain(&eos).cloned().chain(others).collect();
        let named = purposes.iter().map(|token| token.content.clone()).collect();
        let decided = !added.is_empty();
        for (content, id) in &ids {
            added.entry(*id).or_insert_with(|| AddedToken { content: content.clone(), ..AddedToken::default() });
        }
        for token in purposes {
            let known = added.iter().find(|(_, known)| known.content == token.content).map(|(id, _)| *id);
            let Some(id) = known.or_else(|| id(&token.content)) else { continue };
            let special = AddedToken { special: true, ..token };
            match added.get_mut(&id) {
                Some(known) if decided => known.special = true,
                _ => drop(added.insert(id, special)),
            }
        }
        added.retain(|_, token| !token.content.is_empty());
        if added.len() > MAX_ADDED {
            let reason = format!("{} tokens are added, more than the {MAX_ADDED} that are read", added.len());
            return Err(CheckpointError::json(&dir.join("tokenizer_config.json"), &reason));
        }
        Ok(Self {
            added,
            named,
            bos: bos.map(|token| token.content),
            eos: eos.map(|token| token.content),
            add_bos: config.add_bos_token,
            add_eos: config.add_eos_token,
            legacy: config.legacy,
            add_prefix_space: config.add_prefix_space,
        })
    }
}

//! A text as the merges see it: rules of replacement, spaces as `▁`, extra spaces gone, the prefix.
//! Follows normalizer.cc of `SentencePiece` step by step.

use super::super::symbols::Symbols;
use super::charsmap::Charsmap;
use super::proto::ModelFile;

/// How a space is written in pieces.
pub const SPACE: &str = "\u{2581}";

/// `NormalizerSpec`, ready for use.
#[derive(Debug)]
pub struct Normalizer {
    charsmap: Charsmap,
    add_dummy_prefix: bool,
    remove_extra: bool,
    space: &'static str,
}

impl Normalizer {
    /// What `model` asks for.
    ///
    /// # Errors
    /// When its rules of replacement are malformed.
    pub fn new(model: &ModelFile) -> Result<Self, String> {
        Ok(Self {
            charsmap: Charsmap::read(&model.charsmap)?,
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra: model.remove_extra_whitespaces,
            space: if model.escape_whitespaces { SPACE } else { " " },
        })
    }

    /// The space in front of a text; `wanted` overrides what the model file says.
    pub fn prefix(&self, wanted: Option<bool>) -> Option<&'static str> {
        wanted.unwrap_or(self.add_dummy_prefix).then_some(self.space)
    }

    /// `text` as the merges see it. `prefix` overrides whether a space comes first.
    pub fn normalize(
        &self,
        text: &str,
        prefix: Option<bool>,
        symbols: &Symbols,
        admitted: impl Fn(u32) -> bool,
    ) -> String {
        let mut rest = text;
        while self.remove_extra && !rest.is_empty() {
            let (replacement, len) = self.next(rest, symbols, &admitted);
            if replacement != " " {
                break;
            }
            rest = &rest[len..];
        }
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if rest.is_empty() {
            return out;
        }
        out.push_str(self.prefix(prefix).unwrap_or(""));
        let mut after_space = self.remove_extra;
        while !rest.is_empty() {
            let (mut replacement, len) = self.next(rest, symbols, &admitted);
            if after_space {
                replacement = replacement.trim_start_matches(' ');
            }
            if !replacement.is_empty() {
                for (number, words) in replacement.split(' ').enumerate() {
                    if number > 0 {
                        out.push_str(self.space);
                    }
                    out.push_str(words);
                }
                after_space = self.remove_extra && replacement.ends_with(' ');
            }
            rest = &rest[len..];
        }
        if self.remove_extra {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        out
    }

    /// What the start of `text` becomes, and how many bytes of it that takes.
    fn next<'a>(&'a self, text: &'a str, symbols: &Symbols, admitted: impl Fn(u32) -> bool) -> (&'a str, usize) {
        if let Some(len) = symbols.prefix(text, admitted) {
            return (&text[..len], len);
        }
        if let Some((len, replacement)) = self.charsmap.replace(text) {
            return (replacement, len);
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (&text[..len], len)
    }
}

//! Ids of one answer to text as they come, complete characters only.

use std::sync::Arc;

use tokenizers::Tokenizer;

const REPLACEMENT: char = '\u{FFFD}';
/// Bytes of a character that can still be missing when its first one is there.
const MAX_INCOMPLETE: usize = 3;
/// Tokens kept for context, for decoders that treat the first token of a text differently.
const CONTEXT: usize = 4;
/// Tokens after which an undecidable text is given as it is.
const MAX_WINDOW: usize = 64;

/// Turns the ids of one answer into text, complete characters only.
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    window: Vec<u32>,
    /// The part of the window's text that was given already.
    given: String,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, window: Vec::new(), given: String::new() }
    }

    /// Text that became certain with `id`; empty while a character is incomplete. Special tokens give none.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        let text = self.decode(&self.window);
        if !text.starts_with(&self.given) {
            // A run of bytes that is no character for now changes what was before it.
            return if self.window.len() > MAX_WINDOW { self.restart(&text) } else { String::new() };
        }
        let new = &text[self.given.len()..];
        let sure = new.trim_end_matches(REPLACEMENT);
        let doubtful = (new.len() - sure.len()) / REPLACEMENT.len_utf8();
        let keep = sure.len() + doubtful.saturating_sub(MAX_INCOMPLETE) * REPLACEMENT.len_utf8();
        let out = new[..keep].to_owned();
        self.given.push_str(&out);
        if doubtful == 0 && self.window.len() > 2 * CONTEXT {
            self.slide();
        } else if self.window.len() > MAX_WINDOW {
            return out + &self.restart(&text);
        }
        out
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        let text = self.decode(&self.window);
        self.restart(&text)
    }

    /// Drops old tokens if the text of the rest is the end of the text of all.
    fn slide(&mut self) {
        let rest = self.window[self.window.len() - CONTEXT..].to_vec();
        let text = self.decode(&rest);
        if !text.contains(REPLACEMENT) {
            self.window = rest;
            self.given = text;
        }
    }

    fn restart(&mut self, text: &str) -> String {
        let out = text.strip_prefix(self.given.as_str()).unwrap_or_default().to_owned();
        self.window.clear();
        self.given.clear();
        out
    }

    fn decode(&self, ids: &[u32]) -> String {
        // Decoding fails for no id sequence of a loaded tokenizer; a failure gives no text.
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }
}

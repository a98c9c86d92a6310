//! Decoders whose text of a token depends on the tokens before it (a first space is stripped, bytes join):
//! decodes a short window of the last tokens each time.

use std::sync::Arc;

use tokenizers::Tokenizer;

/// Tokens kept, and from which on the window is made shorter.
const SHORT_WINDOW: usize = 4;
const LONG_WINDOW: usize = 12;
/// The window is cut here even where that may lose a space.
const LONGEST_WINDOW: usize = 64;

/// Tokens that may end in a replacement character before that is what the model wrote.
const MAX_HELD: usize = 3;

/// Turns the ids of one answer into text.
pub struct WindowDetokenizer {
    tokenizer: Arc<Tokenizer>,
    window: Vec<u32>,
    /// The part of the window's text that was given already.
    given: String,
    /// Tokens at the end of the window that stand for one byte each. Whether they show characters or
    /// replacement characters depends on the whole run, so it is held back until another token ends it.
    run: usize,
    /// Tokens held back because the text ends in a replacement character, which may become another.
    held: usize,
    /// Tokens decoded so far: the work done.
    pub(super) decoded: usize,
}

impl WindowDetokenizer {
    /// At the start of an answer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, window: Vec::new(), given: String::new(), run: 0, held: 0, decoded: 0 }
    }

    /// Text that became certain with `id`.
    pub fn push(&mut self, id: u32) -> String {
        let Some(token) = self.tokenizer.id_to_token(id) else { return String::new() };
        if self.tokenizer.get_added_vocabulary().is_special_token(&token) {
            return String::new();
        }
        self.window.push(id);
        if is_byte(&token) {
            self.run += 1;
            return String::new();
        }
        self.run = 0;
        let text = self.decode(0);
        if text.ends_with(char::REPLACEMENT_CHARACTER) && self.held < MAX_HELD {
            self.held += 1;
            return String::new();
        }
        self.held = 0;
        let out = self.give(&text);
        if self.window.len() >= LONG_WINDOW {
            self.shorten(&text);
        }
        out
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        let text = if self.run + self.held > 0 { self.decode(0) } else { self.given.clone() };
        let out = self.give(&text);
        self.window.clear();
        self.given.clear();
        (self.run, self.held) = (0, 0);
        out
    }

    /// What `text` has beyond what was given.
    fn give(&mut self, text: &str) -> String {
        let same = self.given.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        let same: usize = same.map(|(c, _)| c.len_utf8()).sum();
        text.clone_into(&mut self.given);
        text[same..].to_owned()
    }

    /// Drops the oldest tokens: not within a run of bytes, and where the others' own text is the end of `text`.
    fn shorten(&mut self, text: &str) {
        let len = self.window.len();
        for start in len.saturating_sub(SHORT_WINDOW)..len {
            let token = self.tokenizer.id_to_token(self.window[start]).unwrap_or_default();
            if token.is_empty() || is_byte(&token) {
                continue;
            }
            let tail = self.decode(start);
            if text.ends_with(&tail) || len >= LONGEST_WINDOW {
                self.window.drain(..start);
                self.given = tail;
                return;
            }
        }
    }

    fn decode(&mut self, start: usize) -> String {
        self.decoded += self.window.len() - start;
        // Decoding fails for no id sequence of a loaded tokenizer; a failure would give no text.
        self.tokenizer.decode(&self.window[start..], true).unwrap_or_default()
    }
}

/// Whether `token` is one byte of byte fallback (`<0x0A>`).
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

//! Ids of one answer to text as they come, complete characters only.

use std::sync::Arc;

use tokenizers::Tokenizer;

const REPLACEMENT: char = '\u{FFFD}';
/// Bytes that the last character can already have while it is incomplete.
const INCOMPLETE: usize = 3;
/// Replacement characters at the end above which they are what the model wrote. Not just [`INCOMPLETE`]:
/// byte fallback shows every byte of a run so until the run is whole.
const HOPELESS: usize = 16;
/// Tokens kept at least, and from which on the window is made shorter.
const MIN_WINDOW: usize = 4;
const LONG_WINDOW: usize = 12;

/// Turns the ids of one answer into text, complete characters only.
///
/// Decodes a window of the last tokens each time, since a token's text can depend on the ones
/// before it: bytes join to characters, and some decoders strip the first space of a text.
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
        let doubtful = text.chars().rev().take_while(|c| *c == REPLACEMENT).count();
        let Some(new) = text.strip_prefix(self.given.as_str()) else {
            // Bytes that join to nothing can spoil the characters before them. When they end, go on from there.
            return if doubtful > 0 { String::new() } else { self.give_difference(&text) };
        };
        let held = if doubtful > HOPELESS { INCOMPLETE } else { doubtful };
        let held = held.min(new.chars().count()) * REPLACEMENT.len_utf8();
        let out = new[..new.len() - held].to_owned();
        self.given.push_str(&out);
        if self.window.len() >= LONG_WINDOW {
            self.shorten(&text);
        }
        out
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        let text = self.decode(&self.window);
        let out = self.give_difference(&text);
        self.window.clear();
        self.given.clear();
        out
    }

    fn give_difference(&mut self, text: &str) -> String {
        let same = self.given.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        let same: usize = same.map(|(c, _)| c.len_utf8()).sum();
        text.clone_into(&mut self.given);
        text[same..].to_owned()
    }

    /// Drops the oldest tokens, where the text of the others alone is what it is behind them.
    fn shorten(&mut self, text: &str) {
        for keep in MIN_WINDOW..self.window.len() {
            let (head, tail) = self.window.split_at(self.window.len() - keep);
            let (head, tail_text) = (self.decode(head), self.decode(tail));
            let Some(rest) = text.strip_prefix(head.as_str()) else { continue };
            let stripped = usize::from(rest.strip_prefix(' ') == Some(tail_text.as_str()));
            if (stripped == 1 || rest == tail_text)
                && let Some(given) = self.given.get(head.len() + stripped..)
            {
                self.given = given.to_owned();
                self.window = tail.to_vec();
                return;
            }
        }
    }

    fn decode(&self, ids: &[u32]) -> String {
        // Decoding fails for no id sequence of a loaded tokenizer; a failure would give no text.
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }
}

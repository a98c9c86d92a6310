//! Byte-level vocabularies (GPT-2's alphabet: each byte is written as one printable character): ids to
//! bytes to text, one token at a time.

use std::sync::Arc;

use tokenizers::Tokenizer;

use super::utf8::Utf8Stream;

/// Turns the ids of one answer into text.
pub struct ByteLevelDetokenizer {
    tokenizer: Arc<Tokenizer>,
    text: Utf8Stream,
    strip: Strip,
    left_to_strip: usize,
}

/// Characters that are taken off the start of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Strip {
    /// Which.
    pub content: char,
    /// How many at most.
    pub most: usize,
}

impl ByteLevelDetokenizer {
    /// At the start of an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, strip: Strip) -> Self {
        Self { tokenizer, text: Utf8Stream::each_run(), strip, left_to_strip: strip.most }
    }

    /// Text that became certain with `id`.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        if let Some(token) = self.tokenizer.id_to_token(id)
            && !self.tokenizer.get_added_vocabulary().is_special_token(&token)
        {
            self.text.push(&bytes(token), &mut out);
        }
        self.stripped(out)
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.text.finish(&mut out);
        let out = self.stripped(out);
        self.left_to_strip = self.strip.most;
        out
    }

    fn stripped(&mut self, text: String) -> String {
        let mut rest = text.as_str();
        while self.left_to_strip > 0
            && let Some(first) = rest.chars().next()
        {
            if first != self.strip.content {
                self.left_to_strip = 0;
                break;
            }
            self.left_to_strip -= 1;
            rest = &rest[first.len_utf8()..];
        }
        if rest.len() == text.len() { text } else { rest.to_owned() }
    }
}

/// The bytes of a token; those of its text where it is not written in the alphabet.
pub fn bytes(token: String) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    bytes.unwrap_or_else(|| token.into_bytes())
}

/// The byte that `character` stands for: itself where it is printable, else those from U+0100 on in order.
fn byte(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(printable),
        code => (0..=u8::MAX).filter(|byte| !printable(byte)).nth(code as usize - 0x100),
    }
}

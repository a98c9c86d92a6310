//! Added tokens: strings that become one token wherever they occur, before the rest of the text is
//! tokenised, with or without the white space around them.

use std::collections::{BTreeMap, HashMap};

use super::files::AddedToken;
use super::symbols::Symbols;

/// A stretch of a text.
#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    /// Something to tokenise.
    Text(&'a str),
    /// One token.
    Token(u32),
}

/// The added tokens of a tokenizer.
#[derive(Debug, Default)]
pub struct Added {
    tokens: BTreeMap<u32, AddedToken>,
    ids: HashMap<Box<str>, u32>,
    symbols: Symbols,
}

impl Added {
    /// From tokens by id. Tokens without text are left out.
    pub fn new(tokens: BTreeMap<u32, AddedToken>) -> Self {
        let written = || tokens.iter().filter(|(_, token)| !token.content.is_empty());
        let ids = written().map(|(id, token)| (Box::from(token.content.as_str()), *id)).collect();
        let symbols = Symbols::new(written().map(|(id, token)| (Box::from(token.content.as_str()), *id)));
        Self { tokens, ids, symbols }
    }

    /// The id of the token that is written `content`.
    pub fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// The token with this id.
    pub fn get(&self, id: u32) -> Option<&AddedToken> {
        self.tokens.get(&id)
    }

    /// All tokens by id.
    pub fn tokens(&self) -> &BTreeMap<u32, AddedToken> {
        &self.tokens
    }

    /// `text` cut at the added tokens in it, from the left, the longest where several start. White space that a
    /// token takes along is gone.
    pub fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(first) = text[at..].chars().next() {
            let Some((id, token)) = self.starts(text, at) else {
                at += first.len_utf8();
                continue;
            };
            let before = &text[from..at];
            let before = if token.lstrip { before.trim_end() } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(id));
            at += token.content.len();
            if token.rstrip {
                at = text.len() - text[at..].trim_start().len();
            }
            from = at;
        }
        if from < text.len() {
            parts.push(Part::Text(&text[from..]));
        }
        parts
    }

    fn starts(&self, text: &str, at: usize) -> Option<(u32, &AddedToken)> {
        let len = self.symbols.prefix(&text[at..], |_| true)?;
        let id = self.id(&text[at..at + len])?;
        let token = self.tokens.get(&id)?;
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let touched = word(text[..at].chars().next_back()) || word(text[at + len..].chars().next());
        (!token.single_word || !touched).then_some((id, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added() -> Added {
        let token = |content: &str, lstrip, rstrip, single_word| AddedToken {
            content: content.to_owned(),
            lstrip,
            rstrip,
            single_word,
            special: true,
        };
        Added::new(BTreeMap::from([
            (1, token("<a>", false, false, false)),
            (2, token("<a>b", false, false, false)),
            (3, token("<left>", true, false, false)),
            (4, token("<right>", false, true, false)),
            (5, token("word", false, false, true)),
        ]))
    }

    #[test]
    fn the_longest_token_is_cut_out() {
        use Part::{Text, Token};
        assert_eq!(added().split("x<a>b<a>"), [Text("x"), Token(2), Token(1)]);
        assert_eq!(added().split("<a"), [Text("<a")]);
        assert_eq!(added().split(""), []);
    }

    #[test]
    fn white_space_goes_where_the_flags_say() {
        use Part::{Text, Token};
        assert_eq!(added().split("x \n<left> y"), [Text("x"), Token(3), Text(" y")]);
        assert_eq!(added().split("x <right> \n y"), [Text("x "), Token(4), Text("y")]);
        assert_eq!(added().split(" <left> <right> "), [Token(3), Text(" "), Token(4)]);
    }

    #[test]
    fn a_word_is_one_only_by_itself() {
        use Part::{Text, Token};
        assert_eq!(added().split("a word."), [Text("a "), Token(5), Text(".")]);
        assert_eq!(added().split("words"), [Text("words")]);
    }
}

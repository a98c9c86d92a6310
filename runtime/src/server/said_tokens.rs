//! The probabilities of an answer's tokens, held until the text of each token is sent, and forgotten where a stop
//! string takes it.

use std::collections::VecDeque;

use vlm_contract::openai::chat::{TokenLogprob, TopLogprob};

use crate::engine::Logprobs;
use crate::processor::{Processor, Shown};

/// A token of an answer, and where its text begins there.
#[derive(Clone, Debug, PartialEq)]
pub struct SaidToken {
    /// In characters.
    pub at: usize,
    /// The token.
    pub token: TokenLogprob,
}

/// Tokens whose text has not been sent.
#[derive(Debug, Default)]
pub struct SaidTokens {
    /// Each with the place in the text, in bytes, at which its own begins.
    held: VecDeque<(usize, SaidToken)>,
}

impl SaidTokens {
    /// A token whose text begins after so many bytes.
    pub fn push(&mut self, bytes: usize, token: SaidToken) {
        self.held.push_back((bytes, token));
    }

    /// Those whose text begins before `sent`.
    pub fn take(&mut self, sent: usize) -> Vec<SaidToken> {
        let count = self.held.iter().take_while(|(at, _)| *at < sent).count();
        self.held.drain(..count).map(|(_, token)| token).collect()
    }

    /// The probabilities of those whose text has not been sent, which are the last of the answer.
    pub fn unsent(&self) -> Vec<TokenLogprob> {
        self.held.iter().map(|(_, said)| said.token.clone()).collect()
    }

    /// All: nothing more comes.
    pub fn finish(&mut self) -> Vec<SaidToken> {
        self.held.drain(..).map(|(_, token)| token).collect()
    }

    /// The rest is part of a stop string.
    pub fn forget(&mut self) {
        self.held.clear();
    }
}

/// The probability of the token `id` as clients are told of it.
pub fn told(processor: &Processor, id: u32, logprobs: &Logprobs) -> TokenLogprob {
    let top = |(id, logprob): &(u32, f32)| {
        let (token, bytes) = shown(processor, *id);
        TopLogprob { token, logprob: *logprob, bytes }
    };
    let (token, bytes) = shown(processor, id);
    TokenLogprob { token, logprob: logprobs.token, bytes, top_logprobs: logprobs.top.iter().map(top).collect() }
}

fn shown(processor: &Processor, id: u32) -> (String, Vec<u8>) {
    match processor.shown(id) {
        Some(Shown::Bytes(bytes)) => (String::from_utf8_lossy(&bytes).into_owned(), bytes),
        Some(Shown::Special(name)) => (name, Vec::new()),
        None => (String::new(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> SaidToken {
        let token = TokenLogprob { token: name.into(), logprob: 0.0, bytes: Vec::new(), top_logprobs: Vec::new() };
        SaidToken { at: 0, token }
    }

    #[test]
    fn a_token_is_told_once_the_beginning_of_its_text_is_sent() {
        let mut tokens = SaidTokens::default();
        for (at, name) in [(0, "a"), (1, "b"), (1, "c"), (4, "d")] {
            tokens.push(at, token(name));
        }
        assert_eq!(tokens.take(0), []);
        assert_eq!(tokens.take(1), [token("a")]);
        assert_eq!(tokens.take(4), [token("b"), token("c")]);
        assert_eq!(tokens.unsent(), [token("d").token]);
        assert_eq!(tokens.finish(), [token("d")]);
        tokens.push(9, token("e"));
        tokens.forget();
        assert_eq!(tokens.finish(), []);
    }
}

//! Moving a stream to another model server: what the gateway sends, what it learns from the first server, and which
//! bytes it signs. The model server answers with the rest of the stream, from the first event that was not sent.
//!
//! # Expected flow
//! The gateway asks with [`crate::headers::STREAM_STATE`], whichever route the client has asked. A server that tells the
//! state says with the same header of its answer, in JSON, what the stream's [`Identity`] is. Before the data of an
//! event, it writes a comment line, [`STATE_PREFIX`] and the JSON of a [`StreamState`], and the gateway takes it out.
//! Events without such a line belong to the next one that has it. When the stream breaks off, the gateway posts to
//! [`PATH`] on another server: the JSON of a [`Head`] on one line, a line feed, and the body of the client's request as
//! it came.
//!
//! # Guarantees
//! - The sampler's whole state follows from the head: a token depends on the seed, on the answer's place among those of
//!   the request, on the token's position and on the tokens before it, and so do penalties and the place in a grammar.
//! - So does everything that was sent: the text from the tokens, and the names of items and calls from the stream's id.

use serde::{Deserialize, Serialize};

use crate::openai::chat::TokenLogprob;

/// Where a continuation is posted. Its number changes with what a head or a state means, so that servers and gateways
/// that differ in it do not meet: to each other they are as without a key.
pub const PATH: &str = "/internal/v2/continuations";
/// Content type of a continuation.
pub const CONTENT_TYPE: &str = "application/vnd.vlm.continuation";
/// Header: seconds since 1970 at which it was signed, in decimal digits.
pub const SIGNED_AT: &str = "x-vlm-signed-at";
/// Header: the Ed25519 signature (RFC 8032) of [`signed_bytes`], in base64.
pub const SIGNATURE: &str = "x-vlm-signature";
/// A server takes no signature whose time differs by more from its own clock, so that what somebody has copied is soon
/// of no use.
pub const LONGEST_AGE_SECONDS: u64 = 30;
/// Begins the comment that carries a [`StreamState`], after the colon and the blank of a comment.
pub const STATE_PREFIX: &str = "vlm-state ";
/// Most bytes of a head.
pub const LONGEST_HEAD: usize = 1 << 20;

/// Which stream it is, as the client knows it, and how its tokens are drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Seed of the first answer, the client's or one that was drawn; those of the others follow from it.
    pub seed: u64,
}

/// What a continuation begins with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The path that the client asked, such as `/v1/chat/completions`.
    pub path: String,
    /// The content type of the client's request.
    pub content_type: String,
    /// As the first server told it.
    pub identity: Identity,
    /// The answers until now, in the order of the request's; those that are left out at the end have no token. With none
    /// at all nothing was sent, and the stream begins anew.
    pub answers: Vec<AnswerState>,
}

/// An answer until now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswerState {
    /// All its tokens, in order.
    pub tokens: Vec<u32>,
    /// Why it has ended, once all its text was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Its end was sent as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closed: bool,
    /// The probabilities of its last tokens, as far as they were not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsent: Vec<TokenLogprob>,
}

/// Why an answer has ended, although its stream has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The model ended it, or a stop string appeared.
    Stop,
    /// The token limit was reached.
    Length,
}

/// What the first server says of an event: how far the answer is with it that the event belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// Which of the stream's answers, counted from 0.
    pub answer: usize,
    /// The tokens that were generated of it since its event before. Some may not show in the text yet.
    pub tokens: Vec<u32>,
    /// Set once all text of the answer has been sent, with this event or before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// This event is the answer's end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closed: bool,
    /// The probabilities of the answer's last tokens, where they come with a later event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsent: Vec<TokenLogprob>,
    /// This event is the stream's last.
    #[serde(default, skip_serializing_if = "is_false")]
    pub last: bool,
}

impl AnswerState {
    /// Goes on to after an event.
    pub fn advance(&mut self, state: StreamState) {
        self.tokens.extend(state.tokens);
        self.ended = state.ended.or(self.ended);
        self.closed |= state.closed;
        self.unsent = state.unsent;
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the gateway signs: the path, the time and what the body is. `body_sha256` is the hash (SHA-256) of all bytes
/// of the body.
pub fn signed_bytes(signed_at: &str, body_sha256: &[u8]) -> Vec<u8> {
    let mut text = format!("vlm continuation 1\nPOST\n{PATH}\n{signed_at}\n").into_bytes();
    text.extend(
        body_sha256.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| b"0123456789abcdef"[usize::from(digit)]),
    );
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_bytes_are_fixed() {
        let bytes = signed_bytes("1700000000", &[0, 255, 16]);
        let text = "vlm continuation 1\nPOST\n/internal/v2/continuations\n1700000000\n00ff10\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    #[test]
    fn an_answer_goes_on_with_what_is_told() {
        let told = |json| serde_json::from_str::<StreamState>(json).unwrap();
        let mut answer = AnswerState::default();
        answer.advance(told(r#"{"answer": 1, "tokens": [1, 2]}"#));
        answer.advance(told(r#"{"answer": 1, "tokens": [3], "ended": "length"}"#));
        assert_eq!((&answer.tokens[..], answer.ended, answer.closed), (&[1, 2, 3][..], Some(Ended::Length), false));
        answer.advance(told(r#"{"answer": 1, "tokens": [], "closed": true}"#));
        assert_eq!((answer.ended, answer.closed), (Some(Ended::Length), true));
    }
}

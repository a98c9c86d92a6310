//! Moving a stream to another model server: what the gateway sends, what it learns from the first server, and which
//! bytes it signs. The model server answers with the rest of the stream, from the first event that was not sent.
//!
//! # Expected flow
//! The gateway asks with [`crate::headers::STREAM_STATE`]. Before the data of an event, the server writes a comment
//! line, [`STATE_PREFIX`] and the JSON of a [`StreamState`], and the gateway takes it out. When the stream breaks off,
//! the gateway posts to [`PATH`] on another server: the JSON of a [`Head`] on one line, a line feed, and the body of
//! the client's request as it came.
//!
//! # Guarantees
//! The sampler's whole state follows from the head: a token depends on the seed, on its position and on the tokens
//! before it, and so do penalties and the place in a grammar.

use serde::{Deserialize, Serialize};

/// Where a continuation is posted.
pub const PATH: &str = "/internal/v1/continuations";
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

/// What a continuation begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The path that the client asked, such as `/v1/chat/completions`.
    pub path: String,
    /// The content type of the client's request.
    pub content_type: String,
    /// Id of the answer, as the client knows it.
    pub id: String,
    /// Seconds since 1970, as the client knows them.
    pub created: u64,
    /// Seed of the first server.
    pub seed: u64,
    /// All tokens of the answer until now, in order.
    pub tokens: Vec<u32>,
    /// Why the answer has ended, when the last state said so: then only the end of the stream is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
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

/// What the first server says of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Seed of the sampler, the client's or one that was drawn.
    pub seed: u64,
    /// The tokens that were generated since the event before. Some may not show in the text yet.
    pub tokens: Vec<u32>,
    /// Set once all text of the answer has been sent, with this event or before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
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
        let text = "vlm continuation 1\nPOST\n/internal/v1/continuations\n1700000000\n00ff10\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}

//! Server-sent events: cuts a stream of bytes at the ends of its events, so that one can be put between two. Pure.
//! Follows the HTML standard: lines end with CR, LF or both, and an empty line ends an event.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

/// Longest event that is kept until it is whole; a longer one is passed on in pieces.
const LONGEST: usize = 1 << 20;

/// What has arrived of an event that is not whole.
#[derive(Debug, Default)]
pub struct Splitter {
    kept: BytesMut,
    /// The last line that was looked at has no bytes so far.
    line_is_empty: bool,
    /// The last byte was CR: an LF after it belongs to the same line end.
    after_cr: bool,
}

impl Splitter {
    /// Takes bytes in; returns whole events, or nothing when none is whole yet.
    pub fn push(&mut self, bytes: Bytes) -> Option<Bytes> {
        let end = self.last_end(&bytes);
        if end == 0 && self.kept.len() + bytes.len() <= LONGEST {
            self.kept.extend_from_slice(&bytes);
            return None;
        }
        let end = if end == 0 { bytes.len() } else { end };
        if self.kept.is_empty() && end == bytes.len() {
            return Some(bytes);
        }
        let mut whole = std::mem::take(&mut self.kept);
        whole.extend_from_slice(&bytes[..end]);
        self.kept.extend_from_slice(&bytes[end..]);
        Some(whole.freeze())
    }

    /// Where the last event in `bytes` ends; 0 when none does.
    fn last_end(&mut self, bytes: &[u8]) -> usize {
        let mut end = 0;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    // The second half of a line end that has ended an event already.
                    if end == at && at > 0 {
                        end = at + 1;
                    }
                }
                b'\n' | b'\r' => {
                    if self.line_is_empty {
                        end = at + 1;
                    }
                    self.line_is_empty = true;
                    self.after_cr = *byte == b'\r';
                }
                _ => {
                    self.line_is_empty = false;
                    self.after_cr = false;
                }
            }
        }
        end
    }

    /// What is left when the stream ends: an event that was never whole.
    pub fn rest(self) -> Option<Bytes> {
        (!self.kept.is_empty()).then(|| self.kept.freeze())
    }
}

/// An event that carries JSON.
pub fn event(body: &impl Serialize) -> Bytes {
    // Our own types always serialise.
    let json = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    Bytes::from(format!("data: {json}\n\n"))
}

/// A comment, which every reader of events passes over; `text` has no line ends.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(splitter.push(Bytes::copy_from_slice(piece.as_bytes())));
        }
        out.extend(splitter.rest());
        out.iter().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    #[test]
    fn bytes_are_cut_at_the_ends_of_events() {
        assert_eq!(split(&["data: a\n\n"]), ["data: a\n\n"]);
        assert_eq!(split(&["data: a\n", "\ndata: b"]), ["data: a\n\n", "data: b"]);
        assert_eq!(split(&["data: a\n\ndata: b\n\nda", "ta: c\n\n"]), ["data: a\n\ndata: b\n\n", "data: c\n\n"]);
        assert_eq!(split(&["data: a\r\n\r\n", "x"]), ["data: a\r\n\r\n", "x"]);
        assert_eq!(split(&["data: a\r", "\n\r", "\nx"]), ["data: a\r\n\r", "\nx"]);
        assert_eq!(split(&["data: a\r\rx"]), ["data: a\r\r", "x"]);
    }

    #[test]
    fn an_endless_event_is_passed_on_in_pieces() {
        let mut splitter = Splitter::default();
        let piece = Bytes::from(vec![b'x'; 300_000]);
        let passed: usize = (0..20).filter_map(|_| splitter.push(piece.clone())).map(|bytes| bytes.len()).sum();
        assert!(passed >= 20 * 300_000 - LONGEST);
        assert!(splitter.kept.len() <= LONGEST);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_cut_is_at_the_end_of_an_event(
            pieces in proptest::collection::vec("[a\r\n:]{0,6}", 0..30)
        ) {
            let mut splitter = Splitter::default();
            let mut out = String::new();
            for piece in &pieces {
                if let Some(whole) = splitter.push(Bytes::copy_from_slice(piece.as_bytes())) {
                    out.push_str(std::str::from_utf8(&whole).unwrap());
                    let unix = out.replace("\r\n", "\n").replace('\r', "\n");
                    prop_assert!(unix.ends_with("\n\n"), "{out:?}");
                }
            }
            let rest = splitter.rest().unwrap_or_default();
            out.push_str(std::str::from_utf8(&rest).unwrap());
            prop_assert_eq!(out, pieces.concat());
        }
    }
}

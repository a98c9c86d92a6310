//! Ways in which an answer goes wrong.

use std::time::Duration;

use bytes::Bytes;

/// How one answer goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another status, and seconds of `Retry-After`.
    Status(u16, Option<u64>),
    /// The connection breaks behind this many bytes of the body.
    Cut(usize),
    /// Nothing more comes behind this many bytes of the body, and the connection stays.
    Stall(usize),
    /// The body comes in pieces of this many bytes with a pause between.
    Slow(usize, Duration),
    /// The whole file with status 200, whatever range is asked for.
    NoRanges,
    /// The byte at this place of the file is another.
    Flip(usize),
    /// Another body with status 200, whose length is not told.
    Body(Bytes),
    /// A redirect to there.
    Redirect(String),
}

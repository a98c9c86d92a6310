//! Streams that outlive their replica: what breaks off after its first byte goes on at another one, in the same stream
//! of events, with no token lost and none twice.
//!
//! # Expected flow
//! A replica is asked to say with each event what continues the stream ([`vlm_contract::continuation`]). `reader`
//! keeps it and takes it out of what the client gets. When the stream breaks off, `stream` gets another replica from
//! the desk, and `ask` posts the client's request there, with what was said of its answer until then, signed by
//! [`key`].
//!
//! # Guarantees
//! - An event is passed on only together with the state that goes on after it, and the end of an answer only whole: so
//!   whatever is sent again was never sent before.
//! - Bounded: the bodies that are kept take at most half of the room for bodies, an answer's tokens have a limit, and
//!   so has the number of attempts and moves, and the time that a stream waits for a replica.
//! - Where an answer cannot go on, the last event says so, and whether to retry.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue};
use vlm_contract::headers::STREAM_STATE;

mod ask;
pub mod key;
mod reader;
mod stream;

pub(crate) use stream::{Source, follow};

use crate::{app::App, request::Peek, routes::Route};

/// The only route whose answers a replica continues.
const CONTINUED: &str = "/v1/chat/completions";
/// Most moves of one stream. A rollout moves it once for each replica at worst.
const MOST_MOVES: u32 = 32;
/// Breaks in a row with hardly a token between, after which the request itself is taken to be the cause.
const MOST_BARREN: u32 = 3;
/// Fewer tokens than these are no progress.
const PROGRESS_TOKENS: usize = 8;
/// A replica that streams sends something every 15 s; one that is silent for longer than this is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// After so much of the time that a replica has for its end, its streams are moved, where another one has room. Most
/// have ended by themselves then, and the others have time enough to try again.
const MOVED_AFTER: f64 = 2.0 / 3.0;
/// Time until the next try to move a stream off a replica that ends.
const MOVE_AGAIN: Duration = Duration::from_secs(2);

/// Asks the replica for what continues the answer, where the gateway could make use of it.
pub(crate) fn ask_for_state(app: &App, route: &Route, path: &str, peek: &Peek, headers: &mut HeaderMap) {
    if app.signer.is_some() && route.migrates && peek.stream && path == CONTINUED {
        headers.insert(STREAM_STATE, HeaderValue::from_static("true"));
    }
}

/// Whether the replica was asked for it.
pub(crate) fn asked_for_state(headers: &HeaderMap) -> bool {
    headers.contains_key(STREAM_STATE)
}

/// Signs continuations; `None` where no key was given, and no stream is moved.
pub type Signer = Option<Arc<key::SigningKey>>;

//! Streams that outlive their replica: what breaks off after its first byte goes on at another one, in the same stream
//! of events, with no token lost and none twice.
//!
//! # Expected flow
//! Whatever stream is asked for, the replica is asked to say with each event what continues it
//! ([`vlm_contract::continuation`]). `reader` keeps it and takes it out of what the client gets. When the stream breaks
//! off, `stream` gets another replica from the desk, and `ask` posts the client's request there, with what was said of
//! its answers until then, signed by [`key`].
//!
//! # Guarantees
//! - An event is passed on only together with the state that goes on after it: so whatever is sent again was never sent
//!   before.
//! - Bounded: the bodies that are kept take at most half of the room for bodies, the tokens of a stream's answers have a
//!   limit together, and so has the number of attempts and moves, and the time that a stream waits for a replica.
//! - Where a stream cannot go on, the last event says so, and whether to retry. A replica that tells the state in
//!   another way than this gateway knows is one that does not tell it, and it is passed over when one is to go on.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue};
use vlm_contract::{continuation::Identity, headers::STREAM_STATE};

mod ask;
pub mod key;
mod reader;
mod stream;

pub(crate) use stream::{Source, follow};

use crate::{app::App, request::Peek, routes::Route};

/// Longest id of a stream that is continued.
const LONGEST_ID: usize = 256;
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
pub(crate) fn ask_for_state(app: &App, route: &Route, peek: &Peek, headers: &mut HeaderMap) {
    if app.signer.is_some() && route.migrates && peek.stream {
        headers.insert(STREAM_STATE, HeaderValue::from_static("true"));
    }
}

/// Whether the replica was asked for it.
pub(crate) fn asked_for_state(headers: &HeaderMap) -> bool {
    headers.contains_key(STREAM_STATE)
}

/// Takes out of an answer's headers which stream it is, where its replica tells what continues it.
pub(crate) fn take_identity(headers: &mut HeaderMap) -> Option<Identity> {
    let told = headers.remove(STREAM_STATE)?;
    let identity: Identity = serde_json::from_slice(told.as_bytes()).ok()?;
    (identity.id.len() <= LONGEST_ID).then_some(identity)
}

/// Signs continuations; `None` where no key was given, and no stream is moved.
pub type Signer = Option<Arc<key::SigningKey>>;

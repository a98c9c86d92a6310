//! Reads the events of one stream: keeps what continues it elsewhere, and says which events the client may be given.
//! Pure.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use serde::Deserialize;
use vlm_contract::continuation::{AnswerState, Head, Identity, LONGEST_HEAD, STATE_PREFIX, StreamState};

use crate::metrics::Moved;

#[cfg(test)]
mod tests;

/// Most bytes of a stream's answers in a head, which has path, content type and identity as well.
const MOST_BYTES: usize = LONGEST_HEAD - (64 << 10);
/// An answer has no more in a head, without its tokens and probabilities.
const ANSWER_BYTES: usize = 64;
/// Most bytes of events that wait for the state after them.
const MOST_PENDING: usize = 1 << 20;
/// Codes of errors by which a replica says that it ends before its answer does, or cannot compute any further.
const GIVEN_UP: [(&str, Moved); 2] = [("server_draining", Moved::Draining), ("engine_error", Moved::Failed)];

/// The event by which a replica gives its stream up, though another one could go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// All that it said last.
    pub event: Bytes,
    /// What it says.
    pub why: Moved,
}

/// What was read of one stream.
#[derive(Debug)]
pub(super) struct Reader {
    /// As the client knows it; `None` where the stream cannot be continued, or not any longer: everything is passed on
    /// as it comes.
    identity: Option<Identity>,
    answers: Vec<Answer>,
    /// Tokens of all answers.
    tokens: usize,
    /// The answers have no more in a head.
    bytes: usize,
    /// Events whose state comes with a later one.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    done: bool,
}

/// One of its answers, as far as its events were passed on.
#[derive(Clone, Debug, Default)]
struct Answer {
    state: AnswerState,
    /// Bytes of the probabilities in it.
    unsent: usize,
}

/// The fields of an event's data that matter.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    error: Option<Failure<'a>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

impl Reader {
    /// Of the stream `identity`, whose replica says with its events what continues them; without that, of one whose
    /// replica does not.
    pub(super) fn new(identity: Option<Identity>) -> Self {
        let (answers, pending) = (Vec::new(), Vec::new());
        Self { identity, answers, tokens: 0, bytes: 0, pending, pending_bytes: 0, done: false }
    }

    /// Whether the stream's last event was passed on.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Tokens of the answers whose events were passed on.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether the stream is at its end, which takes no time any more.
    pub(super) fn is_ending(&self) -> bool {
        !self.answers.is_empty() && self.answers.iter().all(|answer| answer.state.closed)
    }

    /// Whether another replica could go on with the stream.
    pub(super) fn can_continue(&self) -> bool {
        self.identity.is_some() && !self.done
    }

    /// What another replica has to know; `None` when the stream cannot be continued.
    pub(super) fn head(&self, path: &str, content_type: &str) -> Option<Head> {
        let identity = self.identity.clone().filter(|_| !self.done)?;
        let answers = self.answers.iter().map(|answer| answer.state.clone()).collect();
        Some(Head { path: path.to_owned(), content_type: content_type.to_owned(), identity, answers })
    }

    /// Another replica goes on: what was not passed on comes again.
    pub(super) fn restart(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// Takes whole events in, as [`crate::sse::Splitter`] cuts them; `out` is what the client gets of them.
    ///
    /// # Errors
    /// [`GivenUp`] is the replica's last event, and not in `out`.
    pub(super) fn push(&mut self, events: &Bytes, out: &mut VecDeque<Bytes>) -> Result<(), GivenUp> {
        let mut rest = events.clone();
        while !rest.is_empty() {
            let end = rest.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
            if end.is_none() {
                // Other line ends, or a piece of an event that is too long to be kept: nothing that our replicas say.
                self.give_in(out);
            }
            let event = rest.split_to(end.unwrap_or(rest.len()));
            self.event(event, out)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), GivenUp> {
        let whole = event.len();
        let (event, state) = take_state(event);
        let Some(data) = data_of(&event) else {
            // A comment, such as a sign of life.
            out.push_back(event);
            return Ok(());
        };
        if self.identity.is_none() {
            self.done |= data == b"[DONE]";
            out.push_back(event);
            return Ok(());
        }
        if let Some(state) = state {
            self.commit(state, whole - event.len(), out);
            out.push_back(event);
            return Ok(());
        }
        let Some(failure) = serde_json::from_slice::<Data<'_>>(data).ok().and_then(|data| data.error) else {
            self.hold(event, out);
            return Ok(());
        };
        let code = failure.code.unwrap_or_default();
        if let Some(why) = GIVEN_UP.iter().find(|(word, _)| *word == code).map(|(_, why)| *why) {
            let words: Vec<Bytes> = self.pending.drain(..).chain([event.clone()]).collect();
            return Err(GivenUp { event: words.concat().into(), why });
        }
        // Another replica would say the same.
        self.give_in(out);
        out.push_back(event);
        Ok(())
    }

    /// What waits may go, and the next state is known, from so many bytes.
    fn commit(&mut self, state: StreamState, bytes: usize, out: &mut VecDeque<Bytes>) {
        out.extend(self.pending.drain(..));
        self.pending_bytes = 0;
        self.done |= state.last;
        if state.answer >= MOST_BYTES / ANSWER_BYTES {
            return self.give_in(out);
        }
        let count = self.answers.len().max(state.answer + 1);
        self.bytes += (count - self.answers.len()) * ANSWER_BYTES;
        self.answers.resize_with(count, Answer::default);
        let Some(answer) = self.answers.get_mut(state.answer) else { return };
        let unsent = if state.unsent.is_empty() { 0 } else { bytes };
        let digits: usize = state.tokens.iter().map(|token| token.checked_ilog10().unwrap_or(0) as usize + 2).sum();
        self.bytes = self.bytes + digits + unsent - answer.unsent;
        self.tokens += state.tokens.len();
        answer.unsent = unsent;
        answer.state.advance(state);
        if self.bytes > MOST_BYTES {
            self.give_in(out);
        }
    }

    fn hold(&mut self, event: Bytes, out: &mut VecDeque<Bytes>) {
        self.pending_bytes += event.len();
        self.pending.push(event);
        if self.pending_bytes > MOST_PENDING {
            self.give_in(out);
        }
    }

    /// From here on the stream cannot be continued.
    fn give_in(&mut self, out: &mut VecDeque<Bytes>) {
        self.identity = None;
        out.extend(self.pending.drain(..));
        self.answers = Vec::new();
    }
}

/// Takes the line with the state out of an event.
fn take_state(event: Bytes) -> (Bytes, Option<StreamState>) {
    let mut from = 0;
    for line in event.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let json = text.strip_prefix(b": ").and_then(|text| text.strip_prefix(STATE_PREFIX.as_bytes()));
        if let Some(json) = json {
            let state = serde_json::from_slice(json).ok();
            let to = from + line.len();
            let event = match from {
                0 => event.slice(to..),
                _ => Bytes::from([&event[..from], &event[to..]].concat()),
            };
            return (event, state);
        }
        from += line.len();
    }
    (event, None)
}

/// The first line of an event's data; `None` when it has none.
fn data_of(event: &[u8]) -> Option<&[u8]> {
    let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:"))?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

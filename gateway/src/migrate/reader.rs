//! Reads the events of one answer: keeps what continues it elsewhere, and says which events the client may be given.
//! Pure.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use vlm_contract::continuation::{Ended, Head, STATE_PREFIX, StreamState};

use crate::metrics::Moved;

#[cfg(test)]
mod tests;

/// Most tokens of an answer that is continued: their head has less than `LONGEST_HEAD` bytes.
const MOST_TOKENS: usize = 1 << 17;
/// Most bytes of events that wait for the state after them.
const MOST_PENDING: usize = 1 << 20;
/// Codes of errors by which a replica says that it ends before its answer does, or cannot compute any further.
const GIVEN_UP: [(&str, Moved); 2] = [("server_draining", Moved::Draining), ("engine_error", Moved::Failed)];

/// How far an answer can be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// There was no event yet.
    Unknown,
    /// Events come with what continues them.
    Followed,
    /// They do not, or not any longer: everything is passed on as it comes.
    Passed,
}

/// An event by which a replica gives its answer up, though another one could go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// The event.
    pub event: Bytes,
    /// What it says.
    pub why: Moved,
}

/// What was read of one answer.
#[derive(Debug)]
pub(super) struct Reader {
    mode: Mode,
    /// Id and time of making, as the client knows them.
    identity: Option<(String, u64)>,
    seed: u64,
    tokens: Vec<u32>,
    ended: Option<Ended>,
    /// Events whose state comes with a later one.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// The answer's end, from the event with its reason on. It is passed on whole, because no state says how much of it
    /// was sent.
    tail: Vec<Bytes>,
    done: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            mode: Mode::Unknown,
            identity: None,
            seed: 0,
            tokens: Vec::new(),
            ended: None,
            pending: Vec::new(),
            pending_bytes: 0,
            tail: Vec::new(),
            done: false,
        }
    }
}

/// The fields of an event's data that matter.
#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(borrow, default)]
    error: Option<Failure<'a>>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

impl Reader {
    /// Whether the answer's last event was passed on.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Tokens of the answer whose events were passed on.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the answer is at its end, which takes no time any more.
    pub(super) fn is_ending(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Whether another replica could go on with the answer.
    pub(super) fn can_continue(&self) -> bool {
        self.mode == Mode::Followed && self.identity.is_some() && !self.done
    }

    /// What another replica has to know; `None` when the answer cannot be continued.
    pub(super) fn head(&self, path: &str, content_type: &str) -> Option<Head> {
        let (id, created) = self.identity.clone().filter(|_| self.can_continue())?;
        Some(Head {
            path: path.to_owned(),
            content_type: content_type.to_owned(),
            id,
            created,
            seed: self.seed,
            tokens: self.tokens.clone(),
            ended: self.ended,
        })
    }

    /// Another replica goes on: what was not passed on comes again.
    pub(super) fn restart(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
        self.tail.clear();
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
        let (event, state) = take_state(event);
        let Some(data) = data_of(&event) else {
            // A comment, such as a sign of life.
            out.push_back(event);
            return Ok(());
        };
        if self.mode == Mode::Passed || (self.mode == Mode::Unknown && state.is_none()) {
            self.mode = Mode::Passed;
            self.done |= data == b"[DONE]";
            out.push_back(event);
            return Ok(());
        }
        self.mode = Mode::Followed;
        if data == b"[DONE]" {
            out.extend(self.pending.drain(..).chain(self.tail.drain(..)));
            out.push_back(event);
            self.done = true;
            return Ok(());
        }
        let data: Data<'_> = serde_json::from_slice(data).unwrap_or_default();
        if let Some(error) = data.error {
            let code = error.code.unwrap_or_default();
            if let Some(why) = GIVEN_UP.iter().find(|(word, _)| *word == code).map(|(_, why)| *why) {
                return Err(GivenUp { event, why });
            }
            // Another replica would say the same.
            self.give_in(out);
            out.push_back(event);
            return Ok(());
        }
        if let (None, Some(id), Some(created)) = (&self.identity, &data.id, data.created) {
            self.identity = Some((id.clone().into_owned(), created));
        }
        let ends = data.choices.iter().any(|choice| choice.finish_reason.is_some());
        if ends || !self.tail.is_empty() {
            self.hold(event, true, out);
        } else if let Some(state) = state {
            self.commit(state, out);
            out.push_back(event);
        } else {
            self.hold(event, false, out);
        }
        Ok(())
    }

    /// What waits may go, and the next state is known.
    fn commit(&mut self, state: StreamState, out: &mut VecDeque<Bytes>) {
        out.extend(self.pending.drain(..));
        self.pending_bytes = 0;
        self.seed = state.seed;
        self.ended = state.ended.or(self.ended);
        self.tokens.extend(state.tokens);
        if self.tokens.len() > MOST_TOKENS {
            self.give_in(out);
        }
    }

    fn hold(&mut self, event: Bytes, tail: bool, out: &mut VecDeque<Bytes>) {
        self.pending_bytes += event.len();
        if tail {
            self.tail.push(event);
        } else {
            self.pending.push(event);
        }
        if self.pending_bytes > MOST_PENDING {
            self.give_in(out);
        }
    }

    /// From here on the answer cannot be continued.
    fn give_in(&mut self, out: &mut VecDeque<Bytes>) {
        self.mode = Mode::Passed;
        out.extend(self.pending.drain(..).chain(self.tail.drain(..)));
        self.tokens = Vec::new();
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

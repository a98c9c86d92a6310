//! Server-sent events as they go over the wire (html.spec.whatwg.org/multipage/server-sent-events.html).

use serde::Serialize;
use vlm_contract::continuation::{STATE_PREFIX, StreamState};

/// Bytes that most events fit.
const EVENT_BYTES: usize = 512;

/// What is sent where nothing else was for long: a comment.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// An event to be sent.
#[derive(Clone, Debug)]
pub struct Event {
    name: Option<&'static str>,
    /// One line.
    data: Vec<u8>,
}

impl Event {
    /// Under a name.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Appends it to `out`, behind a comment with what continues its stream elsewhere where that is told.
    pub fn write(&self, state: Option<&StreamState>, out: &mut Vec<u8>) {
        if let Some(state) = state {
            out.extend_from_slice(b": ");
            out.extend_from_slice(STATE_PREFIX.as_bytes());
            // It always serialises, and on one line.
            let _ = serde_json::to_writer(&mut *out, state);
            out.push(b'\n');
        }
        let lines = [("event: ", self.name.map(str::as_bytes)), ("data: ", Some(&self.data[..]))];
        for (field, value) in lines {
            let Some(value) = value else { continue };
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
    }
}

/// An event with a JSON body.
pub fn event(body: &impl Serialize) -> Event {
    let mut data = Vec::with_capacity(EVENT_BYTES);
    // These types always serialise; an empty object is what a client would see otherwise. JSON escapes line ends.
    if serde_json::to_writer(&mut data, body).is_err() {
        data = b"{}".to_vec();
    }
    Event { name: None, data }
}

/// The event that ends a stream.
pub fn done() -> Event {
    Event { name: None, data: b"[DONE]".to_vec() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(event: &Event, state: Option<&StreamState>) -> String {
        let mut out = b"before\n\n".to_vec();
        event.write(state, &mut out);
        String::from_utf8(out).unwrap().strip_prefix("before\n\n").unwrap().to_owned()
    }

    #[test]
    fn an_event_is_its_lines_and_an_empty_one() {
        assert_eq!(written(&event(&json!({"a": "b\nc\r"})), None), "data: {\"a\":\"b\\nc\\r\"}\n\n");
        let state = StreamState { answer: 2, tokens: vec![7], ..StreamState::default() };
        let expected = ": vlm-state {\"answer\":2,\"tokens\":[7]}\nevent: end\ndata: [DONE]\n\n";
        assert_eq!(written(&done().named("end"), Some(&state)), expected);
    }

    #[test]
    fn what_cannot_be_written_is_an_empty_object() {
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(written(&event(&unwritable), None), "data: {}\n\n");
    }
}

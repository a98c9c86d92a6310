//! Streams that are cut at every byte and go on, beside the undisturbed one.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sse::Splitter;

const TOKENS: u32 = 11;

fn event(state: Option<(&[u32], Option<Ended>)>, data: &str) -> String {
    let state = state.map(|(tokens, ended)| StreamState { seed: 9, tokens: tokens.to_vec(), ended });
    let state = state.map(|state| format!(": {STATE_PREFIX}{}\n", serde_json::to_string(&state).unwrap()));
    format!("{}data: {data}\n\n", state.unwrap_or_default())
}

fn chunk(content: Option<&str>, reason: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": {"content": content}, "finish_reason": reason});
    json!({"id": "chatcmpl-1", "created": 7, "object": "chat.completion.chunk", "choices": [choice]}).to_string()
}

/// What a replica sends of a new answer.
fn answer() -> String {
    event(Some((&[], None)), &chunk(Some(""), None)) + &rest(0, None)
}

/// What a replica sends of an answer from the token `from` on. Every third token shows no text by itself, and the third
/// event but one comes in two halves with one state, as a call does.
fn rest(from: u32, ended: Option<Ended>) -> String {
    let mut text = String::new();
    let (mut fresh, mut shown) = (Vec::new(), String::new());
    for token in (from..TOKENS).filter(|_| ended.is_none()) {
        fresh.push(token);
        shown += "t";
        shown += &token.to_string();
        shown.push(' ');
        if token % 3 == 2 && token + 1 < TOKENS {
            continue;
        }
        if token == 6 {
            text += &event(None, &chunk(Some("half "), None));
        }
        let ended = (token + 1 == TOKENS).then_some(Ended::Stop);
        text += &event(Some((&fresh, ended)), &chunk(Some(&shown), None));
        text += ": keep-alive\n\n";
        (fresh, shown) = (Vec::new(), String::new());
    }
    text += &event(Some((&[], Some(Ended::Stop))), &chunk(None, Some("stop")));
    text +=
        &event(None, &json!({"id": "chatcmpl-1", "choices": [], "usage": {"completion_tokens": TOKENS}}).to_string());
    text + &event(None, "[DONE]")
}

/// Without comments.
fn as_the_client_reads(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with(':'))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("\n\n\n", "\n\n")
        .trim()
        .into()
}

struct Run {
    reader: Reader,
    out: VecDeque<Bytes>,
}

impl Run {
    fn new() -> Self {
        Self { reader: Reader::default(), out: VecDeque::new() }
    }

    /// Pushes a stream that breaks off after `text`, in pieces of `size` bytes.
    fn push(&mut self, text: &str, size: usize) -> Result<(), GivenUp> {
        let mut splitter = Splitter::default();
        for piece in text.as_bytes().chunks(size.max(1)) {
            if let Some(events) = splitter.push(Bytes::copy_from_slice(piece)) {
                self.reader.push(&events, &mut self.out)?;
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8(self.out.iter().flatten().copied().collect()).unwrap()
    }

    fn head(&self) -> Option<Head> {
        self.reader.head("/v1/chat/completions", "application/json")
    }
}

#[test]
fn a_stream_that_is_cut_at_any_byte_goes_on_as_if_it_were_not() {
    let whole = answer();
    let expected = as_the_client_reads(&whole);
    let mut continued = 0;
    for at in 0..=whole.len() {
        let mut run = Run::new();
        run.push(&whole[..at], 50).unwrap();
        assert!(!run.text().contains(STATE_PREFIX));
        let Some(head) = run.head() else {
            assert!(run.text().is_empty() || run.reader.is_done(), "cut after {at} bytes: {}", run.text());
            continue;
        };
        continued += 1;
        assert_eq!((head.id.as_str(), head.created, head.seed), ("chatcmpl-1", 7, 9));
        assert_eq!(head.tokens, (0..head.tokens.len() as u32).collect::<Vec<_>>());
        run.reader.restart();
        run.push(&rest(head.tokens.len() as u32, head.ended), 1000).unwrap();
        assert_eq!(as_the_client_reads(&run.text()), expected, "cut after {at} bytes");
        assert!(run.reader.is_done() && run.head().is_none());
    }
    assert!(continued > 1500, "{continued} cuts");
}

#[test]
fn it_may_break_off_again_and_again() {
    let expected = as_the_client_reads(&answer());
    for step in [100, 170, 260, 400] {
        let (mut run, mut next, mut breaks) = (Run::new(), answer(), 0);
        while !run.reader.is_done() {
            run.push(&next[..next.len().min(step * (breaks + 2))], 64).unwrap();
            run.reader.restart();
            next = run.head().map_or(next, |head| rest(head.tokens.len() as u32, head.ended));
            breaks += 1;
        }
        assert_eq!(as_the_client_reads(&run.text()), expected);
        assert!(breaks > 2, "{breaks} breaks");
    }
}

#[test]
fn an_end_is_passed_on_whole_or_not_at_all() {
    let whole = answer();
    let reason = whole.find("\"finish_reason\":\"stop\"").unwrap();
    for at in [reason + 40, whole.find("usage").unwrap() + 36, whole.len() - 1] {
        let mut run = Run::new();
        run.push(&whole[..at], 64).unwrap();
        assert!(!run.text().contains("\"stop\"") && !run.text().contains("usage"), "cut after {at}");
        assert_eq!(run.head().unwrap().ended, Some(Ended::Stop));
    }
}

#[test]
fn an_answer_without_states_is_passed_on_as_it_is_and_cannot_continue() {
    for text in [
        "data: 1\n\n: c\n\ndata: 2\n\n",
        "event: response.created\ndata: {\"a\": 1}\n\n",
        "data: x\r\n\r\ndata: y\r\n\r\n",
    ] {
        let mut run = Run::new();
        run.push(text, 5).unwrap();
        assert_eq!((run.text().as_str(), run.head()), (text, None));
    }
    let error = event(None, r#"{"error": {"code": "engine_error"}}"#);
    let mut run = Run::new();
    run.push(&error, 50).unwrap();
    assert_eq!(run.text(), error, "no other can do better, so the client reads why");
}

#[test]
fn a_replica_that_gives_up_is_told_from_an_answer_that_is_refused() {
    let begun = answer();
    let begun = &begun[..begun.find("t3").unwrap()];
    let begun = &begun[..begun.rfind("\n\n").unwrap() + 2];
    for (code, why) in [("server_draining", Moved::Draining), ("engine_error", Moved::Failed)] {
        let mut run = Run::new();
        let error = event(None, &json!({"error": {"message": "m", "code": code}}).to_string());
        let given_up = run.push(&format!("{begun}{error}"), 33).unwrap_err();
        assert_eq!((given_up.why, given_up.event), (why, Bytes::from(error)));
        assert!(run.head().is_some() && !run.text().contains("error"));
    }
    let mut run = Run::new();
    run.push(&format!("{begun}{}", event(None, r#"{"error": {"code": "other"}}"#)), 33).unwrap();
    assert!(run.text().contains("other") && run.head().is_none());
}

#[test]
fn what_a_replica_can_make_the_gateway_keep_is_bounded() {
    let mut run = Run::new();
    run.push(&event(Some((&[], None)), &chunk(Some(""), None)), 64).unwrap();
    // Events that never say what continues them.
    let long = event(None, &chunk(Some(&"x".repeat(1000)), None));
    for _ in 0..2 * MOST_PENDING / 1000 {
        run.push(&long, 1 << 20).unwrap();
        let kept = run.reader.pending.iter().map(Bytes::len).sum::<usize>();
        assert!(kept <= MOST_PENDING + long.len());
    }
    assert_eq!(run.head(), None);
    assert!(run.text().len() > 2 * MOST_PENDING, "all of it is passed on");
    let mut run = Run::new();
    let many: Vec<u32> = vec![250_000; 70_000];
    for _ in 0..2 {
        let longest = run.head().map_or(0, |head| serde_json::to_string(&head).unwrap().len());
        assert!(longest < vlm_contract::continuation::LONGEST_HEAD);
        run.push(&event(Some((&many, None)), &chunk(Some("x"), None)), 1 << 20).unwrap();
    }
    assert_eq!((run.head(), run.reader.tokens.capacity()), (None, 0));
}

proptest! {
    #[test]
    fn no_stream_of_bytes_makes_it_lose_or_add_any(pieces in prop::collection::vec("[a\n: {}\"]{0,12}", 0..20)) {
        let text = pieces.concat().replace(STATE_PREFIX, "");
        let (mut reader, mut out, mut splitter) = (Reader::default(), VecDeque::new(), Splitter::default());
        for piece in text.as_bytes().chunks(7) {
            if let Some(events) = splitter.push(Bytes::copy_from_slice(piece)) {
                prop_assert!(reader.push(&events, &mut out).is_ok());
            }
        }
        let passed: Vec<u8> = out.into_iter().flatten().chain(splitter.rest().unwrap_or_default()).collect();
        prop_assert_eq!(String::from_utf8(passed).unwrap(), text);
    }
}

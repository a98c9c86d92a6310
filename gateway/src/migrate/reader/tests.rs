//! Streams that are cut at every byte and go on, beside the undisturbed one.

use proptest::prelude::*;
use serde_json::json;
use vlm_contract::{continuation::Ended, openai::chat::TokenLogprob};

use super::*;
use crate::sse::Splitter;

/// Tokens of each answer.
const TOKENS: [u32; 3] = [11, 4, 8];

fn identity() -> Identity {
    Identity { id: "chatcmpl-1".into(), created: 7, seed: 9 }
}

fn event(state: Option<StreamState>, data: &str) -> String {
    let state = state.map(|state| format!(": {STATE_PREFIX}{}\n", serde_json::to_string(&state).unwrap()));
    format!("{}data: {data}\n\n", state.unwrap_or_default())
}

fn state(answer: usize, tokens: &[u32], ended: Option<Ended>) -> StreamState {
    StreamState { answer, tokens: tokens.to_vec(), ended, ..StreamState::default() }
}

fn chunk(answer: usize, content: Option<&str>, reason: Option<&str>) -> String {
    let choice = json!({"index": answer, "delta": {"content": content}, "finish_reason": reason});
    json!({"id": "chatcmpl-1", "created": 7, "object": "chat.completion.chunk", "choices": [choice]}).to_string()
}

/// What a replica sends of a new stream of `count` answers: the beginnings of all have one state.
fn stream(count: usize) -> String {
    rest(count, &[])
}

/// What a replica sends of a stream from `before` on, an event of each answer in turn.
fn rest(count: usize, before: &[AnswerState]) -> String {
    let begin = |answer| event((answer + 1 == count).then(|| state(0, &[], None)), &chunk(answer, Some(""), None));
    let of = |answer| rest_of(answer, &before.get(answer).cloned().unwrap_or_default());
    let mut answers: Vec<VecDeque<String>> = (0..count).map(of).collect();
    let mut text: String = (0..count).filter(|_| before.is_empty()).map(begin).collect();
    while answers.iter().any(|events| !events.is_empty()) {
        for events in &mut answers {
            text += &events.pop_front().unwrap_or_default();
            text += ": keep-alive\n\n";
        }
    }
    let used: u32 = TOKENS[..count].iter().sum();
    text += &event(None, &json!({"id": "chatcmpl-1", "choices": [], "usage": {"completion_tokens": used}}).to_string());
    text + &event(Some(StreamState { last: true, ..StreamState::default() }), "[DONE]")
}

/// The events of one answer. Every third token shows no text by itself, and the event of the seventh comes in two
/// halves with one state, as a call does.
fn rest_of(answer: usize, before: &AnswerState) -> VecDeque<String> {
    let (mut events, all) = (VecDeque::new(), TOKENS[answer]);
    let (mut fresh, mut shown) = (Vec::new(), String::new());
    for token in (before.tokens.len() as u32..all).filter(|_| before.ended.is_none()) {
        fresh.push(token);
        shown.extend(["t", &token.to_string(), " "]);
        if token % 3 == 2 && token + 1 < all {
            continue;
        }
        // Both halves together: what has no state belongs to the next event that has one, whosever it is.
        let half = if token == 6 { event(None, &chunk(answer, Some("half "), None)) } else { String::new() };
        let ended = (token + 1 == all).then_some(Ended::Stop);
        let whole = event(Some(state(answer, &fresh, ended)), &chunk(answer, Some(&shown), None));
        events.push_back(half + &whole);
        (fresh, shown) = (Vec::new(), String::new());
    }
    if !before.closed {
        let closed = StreamState { closed: true, ..state(answer, &[], Some(Ended::Stop)) };
        events.push_back(event(Some(closed), &chunk(answer, None, Some("stop"))));
    }
    events
}

/// The events' data: those of each answer in their order, and the stream's end.
fn as_the_client_reads(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new(); TOKENS.len() + 1];
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let chunk: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let answer = chunk["choices"][0]["index"].as_u64().map_or(TOKENS.len(), |index| index as usize);
        all[answer].push(data.to_owned());
    }
    all
}

struct Run {
    reader: Reader,
    out: VecDeque<Bytes>,
}

impl Run {
    /// Of a stream whose replica says what continues it.
    fn new() -> Self {
        Self::of(Some(identity()))
    }

    fn of(identity: Option<Identity>) -> Self {
        Self { reader: Reader::new(identity), out: VecDeque::new() }
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
    for count in 1..=TOKENS.len() {
        let whole = stream(count);
        let expected = as_the_client_reads(&whole);
        for at in 0..=whole.len() {
            let mut run = Run::new();
            run.push(&whole[..at], 50).unwrap();
            assert!(!run.text().contains(STATE_PREFIX));
            if run.reader.is_done() {
                assert_eq!((at, run.head()), (whole.len(), None));
                continue;
            }
            let head = run.head().unwrap();
            assert_eq!(head.identity, identity());
            for answer in &head.answers {
                assert_eq!(answer.tokens, (0..answer.tokens.len() as u32).collect::<Vec<_>>());
            }
            run.reader.restart();
            run.push(&rest(count, &head.answers), 1000).unwrap();
            assert_eq!(as_the_client_reads(&run.text()), expected, "{count} answers, cut after {at} bytes");
            assert!(run.reader.is_done() && run.head().is_none());
        }
    }
}

#[test]
fn it_may_break_off_again_and_again() {
    let expected = as_the_client_reads(&stream(3));
    for step in [200, 260, 400] {
        let (mut run, mut next, mut breaks) = (Run::new(), stream(3), 0);
        while !run.reader.is_done() {
            run.push(&next[..next.len().min(step * (breaks + 3))], 64).unwrap();
            run.reader.restart();
            next = run.head().map_or(next, |head| rest(3, &head.answers));
            breaks += 1;
        }
        assert_eq!(as_the_client_reads(&run.text()), expected);
        assert!(breaks > 2, "{breaks} breaks");
    }
}

#[test]
fn an_answer_that_has_ended_is_passed_on_while_others_go_on_and_the_streams_end_only_whole() {
    let whole = stream(3);
    let ends: Vec<usize> = whole.match_indices("\"finish_reason\":\"stop\"").map(|(at, _)| at).collect();
    let closed = |text: &str, at: usize| {
        let mut run = Run::new();
        run.push(&text[..at], 64).unwrap();
        let closed = run.head().unwrap().answers.iter().map(|answer| answer.closed).collect::<Vec<_>>();
        (run.text().matches("\"stop\"").count(), closed, run.reader.is_ending())
    };
    let after = |at: usize| at + whole[at..].find("\n\n").unwrap() + 2;
    assert_eq!(closed(&whole, after(ends[0]) - 1), (0, vec![false; 3], false));
    assert_eq!(closed(&whole, after(ends[0])), (1, vec![false, true, false], false));
    assert_eq!(closed(&whole, after(ends[1])), (2, vec![false, true, true], false));
    assert_eq!(closed(&whole, after(ends[2])), (3, vec![true; 3], true));
    for at in [whole.find("usage").unwrap() + 40, whole.len() - 1] {
        let mut run = Run::new();
        run.push(&whole[..at], 64).unwrap();
        assert!(!run.text().contains("usage") && run.head().is_some(), "cut after {at}");
    }
}

#[test]
fn probabilities_that_were_not_sent_are_those_of_the_last_event() {
    let token = TokenLogprob { token: "a".into(), logprob: -0.5, bytes: vec![97], top_logprobs: Vec::new() };
    let with = |unsent: Vec<TokenLogprob>| StreamState { unsent, ..state(1, &[5], None) };
    let mut run = Run::new();
    run.push(&event(Some(with(vec![token.clone(); 2])), &chunk(1, Some("x"), None)), 64).unwrap();
    assert_eq!(run.head().unwrap().answers[1].unsent, [token.clone(), token.clone()]);
    run.push(&event(Some(with(vec![token.clone()])), &chunk(1, Some("x"), None)), 64).unwrap();
    assert_eq!(run.head().unwrap().answers[1].unsent, [token]);
    let kept = run.reader.bytes;
    run.push(&event(Some(with(vec![])), &chunk(1, Some("x"), None)), 64).unwrap();
    assert_eq!(run.head().unwrap().answers[1].unsent, []);
    assert!(run.reader.bytes < kept, "what is not kept does not count");
}

#[test]
fn a_stream_without_states_is_passed_on_as_it_is_and_cannot_continue() {
    let former = format!(": {STATE_PREFIX}{{\"seed\":9,\"tokens\":[1]}}\ndata: 1\n\n");
    for (text, passed) in [
        ("data: 1\n\n: c\n\ndata: 2\n\n", "data: 1\n\n: c\n\ndata: 2\n\n"),
        ("event: response.created\ndata: {\"a\": 1}\n\n", "event: response.created\ndata: {\"a\": 1}\n\n"),
        ("data: x\r\n\r\ndata: y\r\n\r\n", "data: x\r\n\r\ndata: y\r\n\r\n"),
        (former.as_str(), "data: 1\n\n"),
    ] {
        let mut run = Run::of(None);
        run.push(text, 5).unwrap();
        assert_eq!((run.text().as_str(), run.head()), (passed, None));
    }
    let error = event(None, r#"{"error": {"code": "engine_error"}}"#);
    let mut run = Run::of(None);
    run.push(&error, 50).unwrap();
    assert_eq!(run.text(), error, "no other can do better, so the client reads why");
    // Nor can one whose lines end in another way, whatever its replica said before.
    let mut run = Run::new();
    run.push("data: x\r\n\r\n", 50).unwrap();
    assert_eq!((run.text().as_str(), run.head()), ("data: x\r\n\r\n", None));
}

#[test]
fn a_replica_that_gives_up_is_told_from_an_answer_that_is_refused() {
    let begun = stream(1);
    let begun = &begun[..begun.find("t3").unwrap()];
    let begun = &begun[..begun.rfind("\n\n").unwrap() + 2];
    for (code, why) in [("server_draining", Moved::Draining), ("engine_error", Moved::Failed)] {
        let mut run = Run::new();
        // As the newer API says it: with an event of its own before.
        let failed = event(None, r#"{"type": "response.failed", "response": {"error": {"code": "x"}}}"#);
        let error = event(None, &json!({"error": {"message": "m", "code": code}}).to_string());
        let given_up = run.push(&format!("{begun}{failed}{error}"), 33).unwrap_err();
        assert_eq!((given_up.why, given_up.event), (why, Bytes::from(failed + &error)));
        assert!(run.head().is_some() && !run.text().contains("error"));
    }
    let mut run = Run::new();
    run.push(&format!("{begun}{}", event(None, r#"{"error": {"code": "other"}}"#)), 33).unwrap();
    assert!(run.text().contains("other") && run.head().is_none());
}

#[test]
fn what_a_replica_can_make_the_gateway_keep_is_bounded() {
    let mut run = Run::new();
    // Events that never say what continues them.
    let long = event(None, &chunk(0, Some(&"x".repeat(1000)), None));
    for _ in 0..2 * MOST_PENDING / 1000 {
        run.push(&long, 1 << 20).unwrap();
        let kept = run.reader.pending.iter().map(Bytes::len).sum::<usize>();
        assert!(kept <= MOST_PENDING + long.len());
    }
    assert_eq!(run.head(), None);
    assert!(run.text().len() > 2 * MOST_PENDING, "all of it is passed on");
    // Tokens, of all answers together; answers; probabilities.
    let token = TokenLogprob { token: "a".repeat(5000), logprob: -0.5, bytes: vec![97; 5000], top_logprobs: vec![] };
    let unsent = |answer| StreamState { unsent: vec![token.clone(); 8], ..state(answer, &[], None) };
    for (states, least) in [
        ((0..8).map(|answer| state(answer % 3, &vec![250_000; 30_000], None)).collect::<Vec<_>>(), 4),
        (vec![state(15_000, &[], None), state(15_999, &[], None)], 1),
        (vec![state(usize::MAX / 2, &[], None)], 0),
        ((0..8).map(|answer| state(answer, &[], None)).chain((0..8).map(unsent)).collect(), 9),
    ] {
        let (mut run, mut followed) = (Run::new(), 0);
        for state in states {
            run.push(&event(Some(state), &chunk(0, Some("x"), None)), 1 << 20).unwrap();
            let Some(head) = run.head() else { break };
            followed += 1;
            assert!(serde_json::to_string(&head).unwrap().len() < vlm_contract::continuation::LONGEST_HEAD);
        }
        assert!(followed >= least, "{followed} are little");
        assert_eq!((run.head(), run.reader.answers.capacity()), (None, 0));
    }
}

proptest! {
    #[test]
    fn no_stream_of_bytes_makes_it_lose_or_add_any(pieces in prop::collection::vec("[a\n: {}\"]{0,12}", 0..20)) {
        let text = pieces.concat().replace(STATE_PREFIX, "");
        let (mut reader, mut out, mut splitter) = (Reader::new(None), VecDeque::new(), Splitter::default());
        for piece in text.as_bytes().chunks(7) {
            if let Some(events) = splitter.push(Bytes::copy_from_slice(piece)) {
                prop_assert!(reader.push(&events, &mut out).is_ok());
            }
        }
        let passed: Vec<u8> = out.into_iter().flatten().chain(splitter.rest().unwrap_or_default()).collect();
        prop_assert_eq!(String::from_utf8(passed).unwrap(), text);
    }
}

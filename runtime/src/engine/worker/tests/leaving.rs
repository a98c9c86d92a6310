//! Clients that leave while their requests wait, are read, seen or continued: no step computes anything for them any
//! more. A step is done only when the test lets it, so that what the next one does is known exactly.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::ops::Choice;

/// Tells what it is about to do, and waits until it may.
struct Gated {
    doing: Sender<String>,
    go: Receiver<()>,
}

impl Gated {
    fn step(&self, what: String) {
        // A test that is over waits for nothing.
        if self.doing.send(what).is_ok() {
            let _ = self.go.recv();
        }
    }
}

fn next(choice: Option<Choice>) -> Next {
    let logits = vec![0.0; VOCABULARY];
    match choice {
        Some(choice) => Next::Token(choice.of(&logits)),
        None => Next::Logits(logits),
    }
}

/// Such as `read 0:512 1:4`: sequences, and rows of each.
fn listed(what: &str, parts: impl Iterator<Item = (SequenceId, usize)>) -> String {
    parts.fold(what.to_owned(), |all, (id, count)| format!("{all} {id}:{count}"))
}

impl Executor for Gated {
    fn begin(&mut self, _: SequenceId, _: Vec<Arc<PreparedImage>>) {}

    fn end(&mut self, _: SequenceId) {}

    fn drop_picture(&mut self, _: &ImageKey) {}

    fn encode(&mut self, tiles: &[Tiles]) -> Result<Vec<()>, Failure> {
        self.step(listed("see", tiles.iter().map(|tiles| (tiles.id, tiles.count))));
        Ok(vec![(); tiles.len()])
    }

    fn prefill(&mut self, readings: &[Reading<'_>]) -> Result<Vec<Option<Next>>, Failure> {
        self.step(listed("read", readings.iter().map(|reading| (reading.id, reading.ids.len()))));
        Ok(readings.iter().map(|reading| reading.last.then(|| next(reading.choice))).collect())
    }

    fn decode(&mut self, feedings: &[Feeding<'_>]) -> Result<Vec<Next>, Failure> {
        self.step(listed("decode", feedings.iter().map(|feeding| (feeding.id, 1))));
        Ok(feedings.iter().map(|feeding| next(feeding.choice)).collect())
    }
}

struct Steps {
    engine: Engine,
    doing: Receiver<String>,
    go: Sender<()>,
}

impl Steps {
    fn new(max_concurrency: usize, max_queue: usize) -> Self {
        let (told, doing) = channel();
        let (go, may) = channel();
        Self { engine: spawn(Gated { doing: told, go: may }, max_concurrency, max_queue), doing, go }
    }

    /// What the engine is about to do.
    fn next(&self) -> String {
        self.doing.recv_timeout(Duration::from_secs(10)).expect("the engine does nothing")
    }

    /// Lets it, and gives what it is about to do then.
    fn after(&self) -> String {
        self.go.send(()).unwrap();
        self.next()
    }

    fn waiting(&self) -> usize {
        self.engine.snapshot().waiting
    }
}

#[test]
fn who_leaves_between_two_tokens_gets_no_other() {
    let steps = Steps::new(2, 2);
    let leaves = ask(&steps.engine, 0, 4, 3000);
    assert_eq!(steps.next(), "read 0:4");
    assert_eq!(steps.after(), "decode 0:1");
    let _long = ask(&steps.engine, 1, 1000, 1);
    let _short = ask(&steps.engine, 2, 5, 1);
    assert_eq!(steps.after(), "decode 0:1");
    // In the same step, after the token of the first was sent.
    assert_eq!(steps.after(), "read 1:128");
    assert_eq!(steps.waiting(), 1);
    drop(leaves);
    let then = steps.after();
    assert!(then.starts_with("read ") && !then.contains(" 0:"), "{then}");
    // The one that waited has its place in this very step.
    assert_eq!(steps.waiting(), 0);
}

#[test]
fn who_leaves_while_a_token_is_computed_gets_no_other() {
    let steps = Steps::new(1, 1);
    let leaves = ask(&steps.engine, 0, 4, 3000);
    assert_eq!(steps.next(), "read 0:4");
    assert_eq!(steps.after(), "decode 0:1");
    let _waits = ask(&steps.engine, 1, 5, 1);
    drop(leaves);
    assert_eq!(steps.after(), "read 1:5");
}

#[test]
fn the_rest_of_a_prompt_is_not_read_for_nobody() {
    let steps = Steps::new(1, 1);
    let leaves = ask(&steps.engine, 0, 2000, 1);
    assert_eq!(steps.next(), "read 0:512");
    let _waits = ask(&steps.engine, 1, 5, 1);
    drop(leaves);
    assert_eq!(steps.after(), "read 1:5");
}

#[test]
fn the_rest_of_a_picture_is_not_seen_for_nobody() {
    let steps = Steps::new(1, 1);
    let leaves = ask_about_picture(&steps.engine, 13, 1);
    assert_eq!(steps.next(), "see 0:4");
    let _waits = ask(&steps.engine, 1, 5, 1);
    drop(leaves);
    assert_eq!(steps.after(), "read 1:5");
}

#[test]
fn who_leaves_the_queue_is_not_waited_for() {
    let steps = Steps::new(1, 2);
    let runs = ask(&steps.engine, 0, 4, 3000);
    assert_eq!(steps.next(), "read 0:4");
    let leaves = ask(&steps.engine, 1, 5, 1);
    let _waits = ask(&steps.engine, 2, 6, 1);
    assert_eq!(steps.after(), "decode 0:1");
    assert_eq!(steps.waiting(), 2);
    drop(leaves);
    assert_eq!(steps.after(), "decode 0:1");
    assert_eq!(steps.waiting(), 1);
    drop(runs);
    assert_eq!(steps.after(), "read 1:6");
}

#[test]
fn all_answers_to_a_prompt_go_with_who_asked_for_them() {
    let steps = Steps::new(1, 4);
    let request = Request { prompt: prompt(vec![0; 2000]), max_new_tokens: 9, ..Request::default() };
    let leave = steps.engine.submit_several(ClientId::default(), request, starts(3)).unwrap();
    assert_eq!(steps.next(), "read 0:512");
    let _waits = ask(&steps.engine, 1, 5, 1);
    assert_eq!(steps.waiting(), 3);
    drop(leave);
    assert_eq!(steps.after(), "read 3:5");
    assert_eq!(steps.waiting(), 0);
}

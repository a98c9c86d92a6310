//! A model of a replica: it computes one step at a time, a prompt or a token for each running sequence, and keeps the
//! pictures that it saw last.

use std::collections::VecDeque;

use crate::measured::{KEPT_PICTURE, NEW_PICTURE, STEP, TOKENS};

/// Sequences computed at the same time, as `--max-concurrency` has it by default.
pub const CONCURRENCY: usize = 8;

/// A request at a pod.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub number: usize,
    pub picture: u32,
    pub arrived: f64,
    pub gateway: usize,
}

/// What a step gave.
#[derive(Debug, Default)]
pub struct Done {
    /// The first token of this one, and whether the picture was kept.
    pub first: Option<(Request, bool)>,
    /// These are answered.
    pub answered: Vec<Request>,
}

#[derive(Debug)]
enum Step {
    Prompt(Request, bool),
    Tokens,
}

#[derive(Debug)]
pub struct Pod {
    pub name: String,
    pub ready: bool,
    room: usize,
    waiting: VecDeque<Request>,
    running: Vec<(Request, u32)>,
    /// Newest last.
    kept: Vec<u32>,
    step: Option<Step>,
    /// The last step was a prompt's: those that run get their turn.
    prompted: bool,
}

impl Pod {
    pub fn new(name: String, room: usize) -> Self {
        Self {
            name,
            ready: true,
            room,
            waiting: VecDeque::new(),
            running: Vec::new(),
            kept: Vec::new(),
            step: None,
            prompted: false,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len() + usize::from(matches!(self.step, Some(Step::Prompt(..))))
    }

    pub fn ask(&mut self, request: Request) {
        self.waiting.push_back(request);
    }

    /// Begins a step when there is none; returns how long it takes.
    pub fn begin(&mut self) -> Option<f64> {
        if self.step.is_some() {
            return None;
        }
        let admits = self.running.len() < CONCURRENCY && (!self.prompted || self.running.is_empty());
        if let Some(request) = if admits { self.waiting.pop_front() } else { None } {
            let hit = self.look_up(request.picture);
            self.step = Some(Step::Prompt(request, hit));
            return Some(if hit { KEPT_PICTURE } else { NEW_PICTURE });
        }
        if self.running.is_empty() {
            return None;
        }
        self.step = Some(Step::Tokens);
        Some(STEP.0 + STEP.1 * self.running.len() as f64)
    }

    fn look_up(&mut self, picture: u32) -> bool {
        let at = self.kept.iter().position(|kept| *kept == picture);
        if let Some(at) = at {
            self.kept.remove(at);
        } else if self.kept.len() >= self.room {
            self.kept.remove(0);
        }
        self.kept.push(picture);
        at.is_some()
    }

    pub fn end(&mut self) -> Done {
        let mut done = Done::default();
        match self.step.take() {
            Some(Step::Prompt(request, hit)) => {
                done.first = Some((request, hit));
                self.running.push((request, TOKENS - 1));
                self.prompted = true;
            }
            Some(Step::Tokens) => {
                self.prompted = false;
                self.running.iter_mut().for_each(|(_, left)| *left -= 1);
                done.answered =
                    self.running.extract_if(.., |(_, left)| *left == 0).map(|(request, _)| request).collect();
            }
            None => {}
        }
        done
    }
}

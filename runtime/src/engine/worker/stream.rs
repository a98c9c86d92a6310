//! What the worker knows of one answer: the request, how far it has come, and how its next token is chosen.

use super::super::executor::Next;
use super::super::request::EventSink;
use super::super::sampling::{NotFinite, choose, uniform};
use super::super::steering::Steered;
use super::super::{Failure, Request};
use crate::ops::Choice;

/// One answer.
pub struct Stream {
    /// What was asked for.
    pub request: Request,
    /// Where the request changes logits.
    pub steered: Option<Box<Steered>>,
    /// Of its random numbers.
    pub seed: u64,
    /// Where its tokens go.
    pub events: EventSink,
    /// Tokens so far.
    pub generated: usize,
    /// The last of them.
    pub last: u32,
}

impl Stream {
    /// How its next token is chosen, where that needs the logits alone and nobody else wants them.
    pub fn choice(&self) -> Option<Choice> {
        self.choice_after(0)
    }

    /// The same of the token that comes after so many more.
    pub fn choice_after(&self, more: usize) -> Option<Choice> {
        (self.steered.is_none() && self.request.logprobs.is_none())
            .then(|| self.request.sampling.choice(self.draw_after(more)))
    }

    /// The random number of the token that comes after so many more.
    fn draw_after(&self, more: usize) -> f64 {
        uniform(self.seed, (self.generated + more) as u64)
    }

    /// The next token and whether the answer's form is complete with it; `None` where the answer ends before.
    pub fn choose(&mut self, next: &Next) -> Result<Result<Option<(u32, bool)>, Failure>, NotFinite> {
        let (sampling, draw) = (&self.request.sampling, self.draw_after(0));
        let logits = match next {
            Next::Token(token) => return Ok(Ok(self.unless_stopped(token.ok_or(NotFinite)?))),
            Next::Logits(logits) => logits,
        };
        let Some(steered) = &mut self.steered else {
            let token = choose(logits, sampling, draw)?;
            return Ok(Ok(self.unless_stopped(token)));
        };
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(NotFinite);
        }
        let changed = match steered.steer(logits) {
            Ok(Some(changed)) => changed,
            Ok(None) => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        };
        let token = choose(&changed, sampling, draw)?;
        if self.request.stop_ids.contains(&token) {
            return Ok(Ok(None));
        }
        Ok(steered.took(token).map(|ended| match ended {
            None => Some((token, false)),
            Some(true) => Some((token, true)),
            Some(false) => None,
        }))
    }

    fn unless_stopped(&self, token: u32) -> Option<(u32, bool)> {
        (!self.request.stop_ids.contains(&token)).then_some((token, false))
    }
}

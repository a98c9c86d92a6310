//! What a request changes in the logits before a token is chosen: penalties for tokens that are there already, biases,
//! a shortest answer, and a form that the answer must have.

use std::collections::{HashMap, HashSet};

use super::Failure;
use crate::guide::Guide;

/// The logit of a token that must not be chosen: lower than any other, and still finite.
const BARRED: f32 = f32::MIN;

/// The changes. The default changes nothing.
#[derive(Clone, Debug)]
pub struct Steering {
    /// Taken off the logit of each token that the answer has.
    pub presence_penalty: f32,
    /// Taken off for each time that the answer has the token.
    pub frequency_penalty: f32,
    /// Positive logits of tokens of prompt and answer are divided by it, others multiplied (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Added to the logits of tokens.
    pub bias: Vec<(u32, f32)>,
    /// So many tokens come before one that ends the answer. A form decides by itself when an answer may end.
    pub min_tokens: usize,
    /// The form, at the answer's beginning.
    pub guide: Option<Guide>,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            bias: Vec::new(),
            min_tokens: 0,
            guide: None,
        }
    }
}

impl Steering {
    /// Whether nothing is changed.
    pub fn is_none(&self) -> bool {
        !self.counts() && self.bias.is_empty() && self.min_tokens == 0 && self.guide.is_none()
    }

    #[expect(clippy::float_cmp, reason = "the values that mean nothing")]
    fn counts(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 || self.repetition_penalty != 1.0
    }
}

/// Steers one answer from its beginning to its end.
#[derive(Debug)]
pub struct Steered {
    steering: Steering,
    stop_ids: Vec<u32>,
    /// Tokens of the prompt, where they count.
    prompt: HashSet<u32>,
    /// Tokens of the answer, where they count, and how often.
    answer: HashMap<u32, u32>,
    generated: usize,
}

impl Steered {
    /// At the beginning of the answer to `prompt`, which `stop_ids` end.
    #[expect(clippy::float_cmp, reason = "the value that means nothing")]
    pub fn new(steering: Steering, stop_ids: &[u32], prompt: &[u32]) -> Self {
        let counted = if steering.repetition_penalty == 1.0 { &[] } else { prompt };
        Self {
            stop_ids: stop_ids.to_vec(),
            prompt: counted.iter().copied().collect(),
            answer: HashMap::new(),
            generated: 0,
            steering,
        }
    }

    /// The changed logits; `None` where the answer can only end here.
    ///
    /// # Errors
    /// [`Failure::Form`] when it cannot be said which tokens the form allows.
    pub fn steer(&mut self, logits: &[f32]) -> Result<Option<Vec<f32>>, Failure> {
        let mut changed = logits.to_vec();
        self.penalise(&mut changed);
        for (id, bias) in &self.steering.bias {
            if let Some(logit) = changed.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        // No sum of allowed values gets so far, but a model's own logits can be anything.
        for logit in &mut changed {
            *logit = logit.clamp(-f32::MAX / 2.0, f32::MAX);
        }
        let Some(guide) = &mut self.steering.guide else {
            if self.generated < self.steering.min_tokens {
                for id in &self.stop_ids {
                    changed.get_mut(*id as usize).into_iter().for_each(|logit| *logit = BARRED);
                }
            }
            return Ok(Some(changed));
        };
        let allowed = guide.allowed().map_err(|why| Failure::Form(why.to_string()))?;
        let mut any = false;
        for (id, logit) in (0u32..).zip(&mut changed) {
            if allowed.contains(id) {
                any = true;
            } else {
                *logit = BARRED;
            }
        }
        Ok(any.then_some(changed))
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Steering { presence_penalty, frequency_penalty, repetition_penalty, .. } = self.steering;
        for id in self.prompt.iter().chain(self.answer.keys().filter(|id| !self.prompt.contains(id))) {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            }
        }
        for (id, times) in &self.answer {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit -= presence_penalty + frequency_penalty * *times as f32;
            }
        }
    }

    /// `token` was chosen. Says whether the form is complete, so that the answer ends: `Some(true)` with the token,
    /// `Some(false)` before it.
    ///
    /// # Errors
    /// [`Failure::Form`] when the form does not take the token.
    pub fn took(&mut self, token: u32) -> Result<Option<bool>, Failure> {
        self.generated += 1;
        if self.steering.counts() {
            *self.answer.entry(token).or_default() += 1;
        }
        let Some(guide) = &mut self.steering.guide else { return Ok(None) };
        if guide.ends(token) {
            return Ok(Some(false));
        }
        let complete = guide.take(token).map_err(|why| Failure::Form(why.to_string()))?;
        Ok(complete.then_some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steered(steering: Steering, prompt: &[u32]) -> Steered {
        Steered::new(steering, &[0], prompt)
    }

    fn logits_of(steered: &mut Steered, logits: &[f32]) -> Vec<f32> {
        steered.steer(logits).unwrap().unwrap()
    }

    #[test]
    fn the_default_is_none_and_anything_else_is_some() {
        assert!(Steering::default().is_none());
        for some in [
            Steering { presence_penalty: 0.1, ..Steering::default() },
            Steering { frequency_penalty: -0.1, ..Steering::default() },
            Steering { repetition_penalty: 1.1, ..Steering::default() },
            Steering { bias: vec![(0, 1.0)], ..Steering::default() },
            Steering { min_tokens: 1, ..Steering::default() },
        ] {
            assert!(!some.is_none(), "{some:?}");
        }
    }

    #[test]
    fn presence_counts_once_and_frequency_each_time_in_the_answer_alone() {
        let steering = Steering { presence_penalty: 0.5, frequency_penalty: 0.25, ..Steering::default() };
        let mut steered = steered(steering, &[3, 3]);
        assert_eq!(logits_of(&mut steered, &[1.0; 4]), [1.0; 4]);
        for token in [1, 2, 2] {
            assert_eq!(steered.took(token).unwrap(), None);
        }
        assert_eq!(logits_of(&mut steered, &[1.0; 4]), [1.0, 0.25, 0.0, 1.0]);
    }

    #[test]
    fn repetition_weakens_tokens_of_prompt_and_answer_once() {
        let mut steered = steered(Steering { repetition_penalty: 2.0, ..Steering::default() }, &[1, 1]);
        steered.took(2).unwrap();
        steered.took(1).unwrap();
        assert_eq!(logits_of(&mut steered, &[4.0, 4.0, -4.0, 4.0]), [4.0, 2.0, -8.0, 4.0]);
    }

    #[test]
    fn a_bias_is_added_and_foreign_tokens_are_left_out() {
        let mut steered = steered(Steering { bias: vec![(1, -100.0), (9, 5.0)], ..Steering::default() }, &[]);
        assert_eq!(logits_of(&mut steered, &[1.0, 2.0]), [1.0, -98.0]);
    }

    #[test]
    fn nothing_ends_the_answer_before_its_shortest_length() {
        let mut steered = steered(Steering { min_tokens: 2, ..Steering::default() }, &[]);
        assert_eq!(logits_of(&mut steered, &[9.0, 1.0]), [BARRED, 1.0]);
        steered.took(1).unwrap();
        assert_eq!(logits_of(&mut steered, &[9.0, 1.0]), [BARRED, 1.0]);
        steered.took(1).unwrap();
        assert_eq!(logits_of(&mut steered, &[9.0, 1.0]), [9.0, 1.0]);
    }

    #[test]
    fn changed_logits_are_finite_whatever_the_models_are() {
        let steering = Steering { repetition_penalty: 10.0, bias: vec![(0, 100.0)], ..Steering::default() };
        let mut steered = steered(steering, &[0, 1]);
        assert!(logits_of(&mut steered, &[f32::MAX, f32::MIN]).iter().all(|logit| logit.is_finite()));
    }
}

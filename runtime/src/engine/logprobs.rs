//! How likely a token was, and which ones were likelier: of the model's own logits, before anything changes them.

/// Natural logarithms of probabilities in the place of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// That of the token.
    pub token: f32,
    /// The likeliest tokens with theirs, the likeliest first; of equal ones the lower id first.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Those in the place of `token`, with the likeliest `top`, by the softmax of `logits`, which are finite.
    pub fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
        let normaliser = f64::from(highest) + sum.ln();
        let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
        let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if top < order.len() {
            if top > 0 {
                order.select_nth_unstable_by(top - 1, likelier);
            }
            order.truncate(top);
        }
        order.sort_by(likelier);
        let top = order.into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
        Self { token: logits.get(token as usize).map_or(f32::MIN, |logit| logprob(*logit)), top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_logarithms_of_the_softmax() {
        let logits = [0.5f64, 0.2, 0.2, 0.1].map(|p| (p.ln() + 7.0) as f32);
        let found = Logprobs::of(&logits, 3, 3);
        assert!((f64::from(found.token) - 0.1f64.ln()).abs() < 1e-5);
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert!((f64::from(found.top[1].1) - 0.2f64.ln()).abs() < 1e-5);
        assert_eq!(Logprobs::of(&logits, 0, 0).top, []);
        assert_eq!(Logprobs::of(&logits, 0, 99).top.len(), 4);
        let far = Logprobs::of(&[f32::MIN, f32::MAX], 1, 2);
        assert!(far.token.abs() < 1e-6 && far.top[1].1 < -1e30);
    }
}

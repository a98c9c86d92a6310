//! How a request's tokens are chosen ([`crate::ops::Choice`] does it), with a reproducible random number for each
//! position.

use super::Sampling;
use crate::ops::Choice;

/// The logits hold NaN or infinity: the model is broken, not the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

impl Sampling {
    /// The choice of one token. `draw` is uniform in `[0, 1)`.
    pub fn choice(&self, draw: f64) -> Choice {
        let Self { temperature, top_p, top_k, min_p, .. } = *self;
        Choice { temperature, top_p, min_p, top_k, draw }
    }
}

/// Chooses a token. `draw` is uniform in `[0, 1)` and not used when greedy.
///
/// # Errors
/// [`NotFinite`] when a logit is NaN or infinite, or there is none.
pub fn choose(logits: &[f32], sampling: &Sampling, draw: f64) -> Result<u32, NotFinite> {
    sampling.choice(draw).of(logits).ok_or(NotFinite)
}

/// A number in `[0, 1)` for the `index`-th token of the answer with `seed` (`SplitMix64`).
pub fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed ^ index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..2 {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(temperature: f32, top_p: f32) -> Sampling {
        Sampling { temperature, top_p, ..Sampling::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(choose(&[0.5, 3.0, -1.0, 3.0], &with(0.0, 1.0), 0.99), Ok(1));
    }

    #[test]
    fn broken_logits_choose_nothing() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for temperature in [0.0, 1.0] {
                assert_eq!(choose(&[1.0, broken], &with(temperature, 1.0), 0.5), Err(NotFinite));
            }
        }
        assert_eq!(choose(&[], &with(0.0, 1.0), 0.5), Err(NotFinite));
    }

    #[test]
    fn frequencies_follow_the_softmax_of_the_tempered_logits() {
        let logits = [0.0f32, 1.0, 2.0];
        for temperature in [0.5f32, 1.0, 2.0] {
            let mut counts = [0f64; 3];
            let draws = 40_000;
            for i in 0..draws {
                counts[choose(&logits, &with(temperature, 1.0), uniform(7, i)).unwrap() as usize] += 1.0;
            }
            let weights = logits.map(|l| f64::from(l / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                assert!((count / draws as f64 - weight / total).abs() < 0.01);
            }
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        let logits = [0.6f64, 0.3, 0.1].map(|p| p.ln() as f32);
        let reachable = |top_p: f32| {
            let mut ids: Vec<u32> =
                (0..2000).map(|i| choose(&logits, &with(1.0, top_p), uniform(3, i)).unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(reachable(0.0), [0]);
        assert_eq!(reachable(0.5), [0]);
        assert_eq!(reachable(0.7), [0, 1]);
        assert_eq!(reachable(0.95), [0, 1, 2]);
    }

    #[test]
    fn the_likeliest_k_and_the_minimal_share_leave_what_they_say() {
        let logits = [0.1f64, 0.5, 0.25, 0.15].map(|p| p.ln() as f32);
        let reachable = |sampling: Sampling| {
            let mut ids: Vec<u32> = (0..2000).map(|i| choose(&logits, &sampling, uniform(5, i)).unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let all = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_eq!(reachable(all), [0, 1, 2, 3]);
        assert_eq!(reachable(Sampling { top_k: 1, ..all }), [1]);
        assert_eq!(reachable(Sampling { top_k: 2, ..all }), [1, 2]);
        assert_eq!(reachable(Sampling { top_k: 99, ..all }), [0, 1, 2, 3]);
        assert_eq!(reachable(Sampling { min_p: 0.4, ..all }), [1, 2]);
        assert_eq!(reachable(Sampling { min_p: 1.0, ..all }), [1]);
        // Of the likeliest three the nucleus of 0.6 has two, and half of the likeliest is a quarter.
        assert_eq!(reachable(Sampling { top_k: 3, top_p: 0.6, min_p: 0.45, ..all }), [1, 2]);
    }

    proptest! {
        #[test]
        fn any_finite_logits_give_a_token_of_theirs(
            logits in proptest::collection::vec(-1e30f32..1e30, 1..50),
            temperature in 0f32..3.0, top_p in 0f32..=1.0, top_k in 0u32..60, min_p in 0f32..=1.0,
            seed: u64, index: u64,
        ) {
            let draw = uniform(seed, index);
            prop_assert!((0.0..1.0).contains(&draw));
            let id = choose(&logits, &Sampling { top_k, min_p, ..with(temperature, top_p) }, draw).unwrap();
            prop_assert!((id as usize) < logits.len());
        }
    }
}

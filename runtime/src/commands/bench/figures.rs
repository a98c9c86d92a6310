//! Figures out of timings: quantiles, and the speed while a whole batch decodes. Pure.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Timing;

/// Times in milliseconds; the nearest rank each, so that every one was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The middle.
    pub p50: f64,
    /// Longer than 95 of 100.
    pub p95: f64,
    /// Longer than 99 of 100.
    pub p99: f64,
}

impl Quantiles {
    /// Zeros where there are no times.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let rank = |share: f64| ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
        let [p50, p95, p99] =
            [0.50, 0.95, 0.99].map(|share| times.get(rank(share)).copied().unwrap_or_default().as_secs_f64() * 1e3);
        Self { p50, p95, p99 }
    }
}

/// From each request to its first token.
pub fn first_tokens<'a>(timings: impl Iterator<Item = &'a Timing>) -> Quantiles {
    Quantiles::of(timings.filter_map(|timing| Some(timing.tokens.first()?.duration_since(timing.sent))))
}

/// From each token to the next of the same answer.
pub fn next_tokens<'a>(timings: impl Iterator<Item = &'a Timing>) -> Quantiles {
    Quantiles::of(timings.flat_map(|timing| timing.tokens.windows(2).map(|pair| pair[1] - pair[0])))
}

/// The speed of whole batches, each figure the middle of all batches.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decode {
    /// Tokens of all sequences in a second, while all of them decode.
    pub tokens_per_second: f64,
    /// Until every sequence has its first token, in milliseconds.
    pub all_first_tokens_ms: f64,
}

impl Decode {
    /// Of batches of `size`; `None` where none has a time in which all its sequences decode.
    pub fn of(batches: &[Vec<Timing>], size: usize) -> Option<Self> {
        let whole = || batches.iter().filter(|batch| batch.len() == size);
        let tokens_per_second = middle(whole().filter_map(|batch| together(batch)))?;
        let first = |batch: &Vec<Timing>| Some(last_first_token(batch)?.duration_since(batch.first()?.sent));
        let all_first_tokens_ms = middle(whole().filter_map(first).map(|time| time.as_secs_f64() * 1e3))?;
        Some(Self { tokens_per_second, all_first_tokens_ms })
    }
}

fn last_first_token(batch: &[Timing]) -> Option<Instant> {
    batch.iter().filter_map(|timing| timing.tokens.first()).max().copied()
}

/// Tokens a second while all sequences of a batch decode: from the last first token to the first last token. `None`
/// where there is no such time.
fn together(batch: &[Timing]) -> Option<f64> {
    let begin = last_first_token(batch)?;
    let end = batch.iter().filter_map(|timing| timing.tokens.last()).min().copied()?;
    let seconds = end.checked_duration_since(begin)?.as_secs_f64();
    let within = |timing: &Timing| timing.tokens.iter().filter(|token| **token > begin && **token <= end).count();
    let tokens: usize = batch.iter().map(within).sum();
    (seconds > 0.0).then(|| tokens as f64 / seconds)
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(start: Instant, tokens: &[u64]) -> Timing {
        Timing {
            sent: start,
            tokens: tokens.iter().map(|ms| start + Duration::from_millis(*ms)).collect(),
            cancelled: false,
        }
    }

    #[test]
    fn only_the_time_in_which_all_decode_counts() {
        let start = Instant::now();
        // The second begins at 30 ms, the first ends at 70: tokens at 40 to 70 of both.
        let batch = vec![timing(start, &[10, 20, 30, 40, 50, 60, 70]), timing(start, &[30, 40, 50, 60, 70, 80, 90])];
        let decode = Decode::of(&[batch], 2).unwrap();
        assert!((decode.tokens_per_second - 8.0 / 0.04).abs() < 1e-6, "{decode:?}");
        assert!((decode.all_first_tokens_ms - 30.0).abs() < 1e-6, "{decode:?}");
        let apart = vec![timing(start, &[1, 2]), timing(start, &[3, 4])];
        assert!(Decode::of(&[apart], 2).is_none());
    }

    #[test]
    fn a_batch_counts_by_the_middle_and_only_when_it_is_whole() {
        let start = Instant::now();
        let batch = |step| vec![timing(start, &[step, 2 * step, 3 * step])];
        let decode = Decode::of(&[batch(10), batch(50), batch(20)], 1).unwrap();
        assert!((decode.tokens_per_second - 50.0).abs() < 1e-6, "{decode:?}");
        assert!(Decode::of(&[batch(10)], 2).is_none());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let quantiles = Quantiles::of((1..=100).map(Duration::from_millis));
        let close = |(got, want): (f64, f64)| (got - want).abs() < 1e-6;
        assert!([(quantiles.p50, 50.0), (quantiles.p95, 95.0), (quantiles.p99, 99.0)].into_iter().all(close));
        assert_eq!(Quantiles::of(std::iter::empty()), Quantiles::default());
        let start = Instant::now();
        let both = [timing(start, &[5, 8]), timing(start, &[7, 12])];
        let [first, next] = [first_tokens(both.iter()), next_tokens(both.iter())].map(|quantiles| quantiles.p99);
        assert!((first - 7.0).abs() < 1e-6 && (next - 5.0).abs() < 1e-6, "{first} {next}");
    }
}

//! Which inputs make an output of a pass, and with which weights. Weights are fixed-point numbers in two
//! halves of 16 bits, in pairs of neighbours: a processor multiplies and adds such pairs in one step.

/// Fraction bits of a weight.
pub const FRACTION_BITS: u32 = 32 - 8 - 2;
/// A weight is `high << LOW_BITS` plus `low`; `low` is not negative.
pub const LOW_BITS: u32 = 15;

/// Weights of two neighbouring inputs, the first of which has an even index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    /// Lower halves.
    pub low: [i16; 2],
    /// Upper halves.
    pub high: [i16; 2],
}

/// The inputs of one output.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    /// Half the index of the first input.
    pub first_pair: usize,
    /// Weights from there on.
    pub pairs: &'a [Pair],
}

/// The taps of one direction; those of an unchanged size copy. All have as many pairs as the longest, some
/// of them without weight, because a loop of always the same length is a fast one.
#[derive(Debug)]
pub struct Taps {
    /// First pair of each.
    firsts: Vec<usize>,
    pairs: Vec<Pair>,
    /// Pairs of each.
    length: usize,
}

impl Taps {
    /// Of the outputs `from..from + count` of `output` ones, made from `input` ones.
    pub fn new(input: u32, output: u32, from: u32, count: u32) -> Self {
        let mut weights = Vec::new();
        let mut starts = Vec::with_capacity(count as usize + 1);
        for index in from..from + count {
            let at = weights.len();
            if input == output {
                weights.push(1 << FRACTION_BITS);
                starts.push((index as usize, at));
            } else {
                starts.push((fill(input, output, index, &mut weights), at));
            }
        }
        starts.push((0, weights.len()));
        let spans = || starts.windows(2).map(|two| (two[0].0, &weights[two[0].1..two[1].1]));
        let length = spans().map(|(start, weights)| (start % 2 + weights.len()).div_ceil(2)).max().unwrap_or(0);
        let last = (input as usize).div_ceil(2) - length;
        let mut taps = Self { firsts: Vec::new(), pairs: vec![Pair::default(); length * count as usize], length };
        for ((start, weights), pairs) in spans().zip(taps.pairs.chunks_exact_mut(length)) {
            let first = (start / 2).min(last);
            place(pairs, start - 2 * first, weights);
            taps.firsts.push(first);
        }
        taps
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Tap<'_>> {
        self.firsts
            .iter()
            .zip(self.pairs.chunks_exact(self.length))
            .map(|(first, pairs)| Tap { first_pair: *first, pairs })
    }

    /// Pairs of each.
    pub fn length(&self) -> usize {
        self.length
    }

    /// First and one past the last input that any output reads, both even.
    pub fn inputs(&self) -> (usize, usize) {
        let first = self.firsts.iter().min().copied().unwrap_or(0);
        let last = self.firsts.iter().max().map_or(0, |last| last + self.length);
        (2 * first, 2 * last)
    }
}

/// Puts `weights` behind `skip` inputs without weight.
fn place(pairs: &mut [Pair], skip: usize, weights: &[i32]) {
    for (at, weight) in (skip..).zip(weights) {
        let pair = &mut pairs[at / 2];
        pair.low[at % 2] = (weight & ((1 << LOW_BITS) - 1)) as i16;
        pair.high[at % 2] = (weight >> LOW_BITS) as i16;
    }
}

/// Appends the weights of output `index` to `weights` and returns the first input.
fn fill(input: u32, output: u32, index: u32, weights: &mut Vec<i32>) -> usize {
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let centre = (f64::from(index) + 0.5) * scale;
    let start = (centre - support + 0.5).max(0.0) as u32;
    let end = ((centre + support + 0.5) as u32).min(input);
    let weight = |j: u32| cubic((f64::from(j) - centre + 0.5) / filter_scale);
    let sum: f64 = (start..end).map(weight).sum();
    // `round` rounds halves away from zero, as the reference does.
    weights.extend((start..end).map(|j| (weight(j) / sum * f64::from(1 << FRACTION_BITS)).round() as i32));
    start as usize
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

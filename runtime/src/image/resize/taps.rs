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

/// The taps of one direction; those of an unchanged size copy.
#[derive(Debug)]
pub struct Taps {
    /// First pair, and where its weights begin and end in `pairs`.
    spans: Vec<(usize, usize, usize)>,
    pairs: Vec<Pair>,
}

impl Taps {
    /// Of the outputs `from..from + count` of `output` ones, made from `input` ones.
    pub fn new(input: u32, output: u32, from: u32, count: u32) -> Self {
        let (mut spans, mut pairs) = (Vec::with_capacity(count as usize), Vec::new());
        let mut weights = Vec::new();
        for index in from..from + count {
            let start = if input == output {
                weights.clear();
                weights.push(1 << FRACTION_BITS);
                index as usize
            } else {
                fill(input, output, index, &mut weights)
            };
            let begin = pairs.len();
            push(&mut pairs, start % 2, &weights);
            spans.push((start / 2, begin, pairs.len()));
        }
        Self { spans, pairs }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Tap<'_>> {
        self.spans.iter().map(|&(first_pair, begin, end)| Tap { first_pair, pairs: &self.pairs[begin..end] })
    }

    /// First and one past the last input that any output reads, both even.
    pub fn inputs(&self) -> (usize, usize) {
        let first = self.iter().map(|tap| tap.first_pair).min().unwrap_or(0);
        let last = self.iter().map(|tap| tap.first_pair + tap.pairs.len()).max().unwrap_or(0);
        (2 * first, 2 * last)
    }
}

/// Appends `weights`, shifted by `skip` inputs without weight.
fn push(pairs: &mut Vec<Pair>, skip: usize, weights: &[i32]) {
    let begin = pairs.len();
    pairs.resize(begin + (skip + weights.len()).div_ceil(2), Pair::default());
    for (at, weight) in (skip..).zip(weights) {
        let pair = &mut pairs[begin + at / 2];
        pair.low[at % 2] = (weight & ((1 << LOW_BITS) - 1)) as i16;
        pair.high[at % 2] = (weight >> LOW_BITS) as i16;
    }
}

/// Puts the weights of output `index` into `weights` and returns the first input.
fn fill(input: u32, output: u32, index: u32, weights: &mut Vec<i32>) -> usize {
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let centre = (f64::from(index) + 0.5) * scale;
    let start = (centre - support + 0.5).max(0.0) as u32;
    let end = ((centre + support + 0.5) as u32).min(input);
    let weight = |j: u32| cubic((f64::from(j) - centre + 0.5) / filter_scale);
    let sum: f64 = (start..end).map(weight).sum();
    weights.clear();
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

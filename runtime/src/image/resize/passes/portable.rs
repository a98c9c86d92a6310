//! Both passes for every processor; what the wider instructions must equal.

use super::super::GROUP;
use super::super::taps::{FRACTION_BITS, LOW_BITS, Pair, Taps};
use super::Strip;

/// See [`super::Passes::across`].
pub fn across(strip: &mut Strip, taps: &Taps, plane: usize, out: &mut [u8]) {
    for (row, out) in (0..GROUP).zip(out.chunks_exact_mut(3 * plane)) {
        let line = strip.line(row);
        for (x, tap) in taps.iter().enumerate() {
            let couples = line[tap.first_pair * 6..].chunks_exact(6);
            let mut sums = [1i32 << (FRACTION_BITS - 1); 3];
            for (pair, couple) in tap.pairs.iter().zip(couples) {
                let weights = whole(*pair);
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = step(*sum, weights, couple[c], couple[3 + c]);
                }
            }
            for (c, sum) in sums.into_iter().enumerate() {
                out[c * plane + x] = byte(sum);
            }
        }
    }
}

/// See [`super::Passes::down`].
pub fn down(rows: &[u8], pairs: &[Pair], out: &mut [u8]) {
    let mut sums = vec![1i32 << (FRACTION_BITS - 1); out.len()];
    for (pair, two) in pairs.iter().zip(rows.chunks_exact(2 * out.len())) {
        let weights = whole(*pair);
        let (upper, lower) = two.split_at(out.len());
        for ((sum, a), b) in sums.iter_mut().zip(upper).zip(lower) {
            *sum = step(*sum, weights, *a, *b);
        }
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = byte(sum));
}

fn whole(pair: Pair) -> [i32; 2] {
    [0, 1].map(|i| (i32::from(pair.high[i]) << LOW_BITS) + i32::from(pair.low[i]))
}

fn step(sum: i32, weights: [i32; 2], a: u8, b: u8) -> i32 {
    let (a, b) = (weights[0].wrapping_mul(i32::from(a)), weights[1].wrapping_mul(i32::from(b)));
    sum.wrapping_add(a).wrapping_add(b)
}

fn byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

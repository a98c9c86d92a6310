//! Both passes with 256-bit instructions: sixteen products of 16 bits, added in pairs, at a time.

#![expect(clippy::inline_always, reason = "instructions are only inlined into functions that are")]
#![expect(clippy::cast_possible_wrap, reason = "shifts are by less than 32")]

use std::arch::x86_64::__m256i;

use pulp::NullaryFnOnce;
use pulp::x86::V3;

use super::super::taps::{FRACTION_BITS, LOW_BITS, Pair, Taps};
use super::super::{GROUP, LANES};
use super::{Couple, Strip};

/// Sums of the products with the lower and with the upper halves of the weights.
type Halves = [__m256i; 2];

/// See [`super::Passes::across`].
pub fn across(simd: V3, strip: &mut Strip, taps: &Taps, plane: usize, out: &mut [u8]) {
    simd.vectorize(Across { simd, strip, taps, plane, out });
}

/// See [`super::Passes::down`].
pub fn down(simd: V3, rows: &[u8], pairs: &[Pair], out: &mut [u8]) {
    simd.vectorize(Down { simd, rows, pairs, out });
}

// Instructions are only inlined into what is itself inlined into `vectorize`, which closures are not.
struct Across<'a> {
    simd: V3,
    strip: &'a mut Strip,
    taps: &'a Taps,
    plane: usize,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Across<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, strip, taps, plane, out } = self;
        let Strip { lines, stride, couples } = strip;
        let (mut ready, mut column) = (0, 0);
        let mut taps = taps.iter();
        loop {
            // Sixteen pixels of four rows: two pixels of each row at a time.
            let mut block = [simd.avx._mm256_setzero_si256(); 8];
            let mut any = false;
            for pair in &mut block {
                let mut sums = [simd.avx._mm256_setzero_si256(); 2];
                for (sums, tap) in sums.iter_mut().zip(&mut taps) {
                    let end = tap.first_pair + tap.pairs.len();
                    // As few at a time as are needed, so that they are still in the nearest cache.
                    while ready < end {
                        let Some(two) = couples[ready..].first_chunk_mut() else { break };
                        spread(simd, &lines[6 * ready..], *stride, two);
                        ready += 2;
                    }
                    *sums = four(simd, &couples[tap.first_pair..end], tap.pairs);
                    any = true;
                }
                *pair = simd.avx2._mm256_packus_epi16(sums[0], sums[1]);
            }
            if !any {
                break;
            }
            store(simd, block, plane, &mut out[column..]);
            column += LANES;
        }
    }
}

struct Down<'a> {
    simd: V3,
    rows: &'a [u8],
    pairs: &'a [Pair],
    out: &'a mut [u8],
}

impl NullaryFnOnce for Down<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (rows, _) = self.rows.as_chunks::<LANES>();
        let (out, _) = self.out.as_chunks_mut::<LANES>();
        let stride = out.len();
        let rows = &rows[..2 * self.pairs.len() * stride];
        for (x, out) in out.iter_mut().enumerate() {
            *out = sixteen(self.simd, &rows[x..], stride, self.pairs);
        }
    }
}

/// From the bytes of four pixels of two rows to two couples: the upper bytes become zero.
const ORDER: [[[i8; 16]; 2]; 2] = [
    [[0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1]; 2],
    [[6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1]; 2],
];

/// Turns the bytes of four pixels, the first ones of each line, into two couples.
#[inline(always)]
fn spread(simd: V3, lines: &[u8], stride: usize, two: &mut [[Couple; GROUP]; 2]) {
    let (Some(w), Some(x)) = (lines.first_chunk::<16>(), lines[stride..].first_chunk::<16>()) else { return };
    let (Some(y), Some(z)) = (lines[2 * stride..].first_chunk::<16>(), lines[3 * stride..].first_chunk::<16>()) else {
        return;
    };
    // Stored as they will be loaded: narrower stores would have to reach the cache first.
    let upper: __m256i = pulp::cast([*w, *x]);
    let lower: __m256i = pulp::cast([*y, *z]);
    let order = [pulp::cast(ORDER[0]), pulp::cast(ORDER[1])];
    two[0] =
        pulp::cast([simd.avx2._mm256_shuffle_epi8(upper, order[0]), simd.avx2._mm256_shuffle_epi8(lower, order[0])]);
    two[1] =
        pulp::cast([simd.avx2._mm256_shuffle_epi8(upper, order[1]), simd.avx2._mm256_shuffle_epi8(lower, order[1])]);
}

/// One pixel of each row of the group, in 16 bits: rows 0 and 2, then 1 and 3.
#[inline(always)]
fn four(simd: V3, couples: &[[Couple; GROUP]], pairs: &[Pair]) -> __m256i {
    let zero = simd.avx._mm256_setzero_si256();
    let (mut upper, mut lower) = ([zero; 2], [zero; 2]);
    for (couple, pair) in couples.iter().zip(pairs) {
        let [two, other]: [__m256i; 2] = pulp::cast(*couple);
        let weights = weights(simd, pair);
        upper = step(simd, upper, two, weights);
        lower = step(simd, lower, other, weights);
    }
    simd.avx2._mm256_packs_epi32(finish(simd, upper), finish(simd, lower))
}

/// From red, green, blue and nothing of two pixels of two rows to two of each.
const SORT: [[i8; 16]; 2] = [[0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]; 2];

/// Writes sixteen pixels of the rows of a group to their planes, the first of which `out` begins with.
#[inline(always)]
fn store(simd: V3, block: [__m256i; 8], plane: usize, out: &mut [u8]) {
    let avx2 = simd.avx2;
    let mut sorted = block;
    for pixels in &mut sorted {
        *pixels = avx2._mm256_shuffle_epi8(*pixels, pulp::cast(SORT));
    }
    for lower in [false, true] {
        // Four pixels each: of rows 0 and 1, or of 2 and 3.
        let mut fours = [simd.avx._mm256_setzero_si256(); 4];
        for (four, two) in fours.iter_mut().zip(sorted.chunks_exact(2)) {
            *four = if lower {
                avx2._mm256_unpackhi_epi16(two[0], two[1])
            } else {
                avx2._mm256_unpacklo_epi16(two[0], two[1])
            };
        }
        let [a, b, c, d] = fours;
        let (ab, cd) = (avx2._mm256_unpacklo_epi32(a, b), avx2._mm256_unpacklo_epi32(c, d));
        let (blue_ab, blue_cd) = (avx2._mm256_unpackhi_epi32(a, b), avx2._mm256_unpackhi_epi32(c, d));
        let planes = [
            avx2._mm256_unpacklo_epi64(ab, cd),
            avx2._mm256_unpackhi_epi64(ab, cd),
            avx2._mm256_unpacklo_epi64(blue_ab, blue_cd),
        ];
        for (channel, both) in planes.into_iter().enumerate() {
            let [first, second]: [[u8; LANES]; 2] = pulp::cast(both);
            let row = if lower { 2 } else { 0 };
            out[(3 * row + channel) * plane..][..LANES].copy_from_slice(&first);
            out[(3 * (row + 1) + channel) * plane..][..LANES].copy_from_slice(&second);
        }
    }
}

/// Sixteen columns; each row is `stride` chunks after the one above.
#[inline(always)]
fn sixteen(simd: V3, rows: &[[u8; LANES]], stride: usize, pairs: &[Pair]) -> [u8; LANES] {
    let zero = simd.avx._mm256_setzero_si256();
    let (mut even, mut odd) = ([zero; 2], [zero; 2]);
    for (pair, two) in pairs.iter().zip(rows.chunks(2 * stride)) {
        let a = simd.avx2._mm256_cvtepu8_epi16(pulp::cast(two[0]));
        let b = simd.avx2._mm256_cvtepu8_epi16(pulp::cast(two[stride]));
        let weights = weights(simd, pair);
        even = step(simd, even, simd.avx2._mm256_unpacklo_epi16(a, b), weights);
        odd = step(simd, odd, simd.avx2._mm256_unpackhi_epi16(a, b), weights);
    }
    let sums = simd.avx2._mm256_packs_epi32(finish(simd, even), finish(simd, odd));
    let bytes: [[u8; 8]; 4] = pulp::cast(simd.avx2._mm256_packus_epi16(sums, sums));
    pulp::cast([bytes[0], bytes[2]])
}

#[inline(always)]
fn weights(simd: V3, pair: &Pair) -> Halves {
    [simd.avx._mm256_set1_epi32(pulp::cast(pair.low)), simd.avx._mm256_set1_epi32(pulp::cast(pair.high))]
}

#[inline(always)]
fn step(simd: V3, sums: Halves, pixels: __m256i, weights: Halves) -> Halves {
    let low = simd.avx2._mm256_madd_epi16(pixels, weights[0]);
    let high = simd.avx2._mm256_madd_epi16(pixels, weights[1]);
    [simd.avx2._mm256_add_epi32(sums[0], low), simd.avx2._mm256_add_epi32(sums[1], high)]
}

#[inline(always)]
fn finish(simd: V3, [low, high]: Halves) -> __m256i {
    let half = simd.avx._mm256_set1_epi32(1 << (FRACTION_BITS - 1));
    let high = simd.avx2._mm256_slli_epi32::<{ LOW_BITS as i32 }>(high);
    let sum = simd.avx2._mm256_add_epi32(simd.avx2._mm256_add_epi32(low, high), half);
    simd.avx2._mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sum)
}

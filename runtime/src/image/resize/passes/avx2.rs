//! Both passes with 256-bit instructions: sixteen products of 16 bits, added in pairs, at a time.

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
        spread(simd, strip);
        let (a, rest) = out.split_at_mut(3 * plane);
        let (b, rest) = rest.split_at_mut(3 * plane);
        let (c, d) = rest.split_at_mut(3 * plane);
        let d = &mut d[..3 * plane];
        for (x, tap) in taps.iter().enumerate() {
            let couples = &strip.couples[tap.first_pair..][..tap.pairs.len()];
            let bytes = four(simd, couples, tap.pairs);
            // Packing works in halves of 16 bytes: rows 0 and 2 are in the first, 1 and 3 in the second.
            for (row, at) in [(&mut *a, 0), (&mut *b, 16), (&mut *c, 4), (&mut *d, 20)] {
                row[x] = bytes[at];
                row[plane + x] = bytes[at + 1];
                row[2 * plane + x] = bytes[at + 2];
            }
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

/// From the bytes of four pixels to two couples: the upper bytes become zero.
const ORDER: [[i8; 16]; 2] = [
    [0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1],
    [6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1],
];

/// Turns the lines of `strip` into couples.
#[inline(always)]
fn spread(simd: V3, strip: &mut Strip) {
    let order = ORDER.map(pulp::cast);
    let Strip { lines, stride, couples } = strip;
    for row in 0..GROUP {
        let line = &lines[row * *stride..][..*stride];
        let pairs = couples.chunks_exact_mut(2);
        for (at, two) in pairs.enumerate() {
            let Some(bytes) = line[12 * at..].first_chunk::<16>() else { break };
            let bytes = pulp::cast(*bytes);
            two[0][row] = pulp::cast(simd.ssse3._mm_shuffle_epi8(bytes, order[0]));
            two[1][row] = pulp::cast(simd.ssse3._mm_shuffle_epi8(bytes, order[1]));
        }
    }
}

/// One pixel of each row of the group.
#[inline(always)]
fn four(simd: V3, couples: &[[Couple; GROUP]], pairs: &[Pair]) -> [u8; 32] {
    let zero = simd.avx._mm256_setzero_si256();
    let (mut upper, mut lower) = ([zero; 2], [zero; 2]);
    for (couple, pair) in couples.iter().zip(pairs) {
        let [two, other]: [__m256i; 2] = pulp::cast(*couple);
        let weights = weights(simd, pair);
        upper = step(simd, upper, two, weights);
        lower = step(simd, lower, other, weights);
    }
    let sums = simd.avx2._mm256_packs_epi32(finish(simd, upper), finish(simd, lower));
    pulp::cast(simd.avx2._mm256_packus_epi16(sums, sums))
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

//! The products with 256-bit instructions: 32 products of 8 bits, added in fours, at a time.

#![expect(clippy::inline_always, reason = "instructions are only inlined into functions that are")]

use std::arch::x86_64::{__m128i, __m256, __m256i};

use pulp::NullaryFnOnce;
use pulp::x86::V3;
use vlm_catalog::quantization::BlockFormat;

use super::super::activations::Row;
use super::{BlockProducts, Kernel, Q4K_GROUPS, scales_and_mins};
use crate::ops::cpu;
use crate::ops::element::widen_finite_f16;

const Q8_0: usize = BlockFormat::Q8_0.block_bytes();
const Q4_0: usize = BlockFormat::Q4_0.block_bytes();

/// See [`super::Kernels::run`].
pub fn run(simd: V3, products: BlockProducts<'_>) {
    match products.format {
        BlockFormat::Q8_0 => simd.vectorize(Run(Signed::<Q8_0>(simd), products)),
        BlockFormat::Q4_0 => simd.vectorize(Run(Signed::<Q4_0>(simd), products)),
        BlockFormat::Q4_K => simd.vectorize(Run(Q4K(simd), products)),
    }
}

// Instructions are only inlined into what is itself inlined into `vectorize`, which closures are not.
struct Run<'a, K>(K, BlockProducts<'a>);

impl<K: Kernel> NullaryFnOnce for Run<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.compute(self.0);
    }
}

/// Blocks of 32 signed numbers under one scale, told apart by their bytes: [`Q8_0`] and [`Q4_0`].
#[derive(Clone, Copy)]
struct Signed<const BYTES: usize>(V3);

impl<const BYTES: usize> Kernel for Signed<BYTES> {
    #[inline(always)]
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R] {
        let simd = self.0;
        let (blocks, _) = weights.as_chunks::<BYTES>();
        // As long as the weights' row, so that no place has to be checked below.
        let rows = rows.map(|row| (&row.numbers[..blocks.len()], &row.scales[..blocks.len()]));
        let mut sums = [[simd.avx._mm256_setzero_ps(); 2]; R];
        let (pairs, last) = blocks.as_chunks::<2>();
        for (i, [a, b]) in pairs.iter().enumerate() {
            self.add(a, rows, 2 * i, &mut sums, 0);
            self.add(b, rows, 2 * i + 1, &mut sums, 1);
        }
        if let [block] = last {
            self.add(block, rows, blocks.len() - 1, &mut sums, 0);
        }
        let mut out = [0f32; R];
        for (out, [a, b]) in out.iter_mut().zip(sums) {
            *out = sum(simd.avx._mm256_add_ps(a, b));
        }
        out
    }
}

impl<const BYTES: usize> Signed<BYTES> {
    /// Adds the products of block `i` to the sums of `chain`: two of them grow side by side, because one addition
    /// waits for the one before it.
    #[inline(always)]
    fn add<const R: usize>(
        self,
        block: &[u8; BYTES],
        rows: [(&[[i8; 32]], &[f32]); R],
        i: usize,
        sums: &mut [[__m256; 2]; R],
        chain: usize,
    ) {
        let simd = self.0;
        let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
        let weights = self.numbers(block);
        let magnitudes = simd.avx2._mm256_abs_epi8(weights);
        let ones = simd.avx._mm256_set1_epi16(1);
        for (sums, (numbers, scales)) in sums.iter_mut().zip(rows) {
            // One factor must be unsigned: the signs of the weights go to the other.
            let signed = simd.avx2._mm256_sign_epi8(pulp::cast(numbers[i]), weights);
            let twos = simd.avx2._mm256_maddubs_epi16(magnitudes, signed);
            let fours = simd.avx._mm256_cvtepi32_ps(simd.avx2._mm256_madd_epi16(twos, ones));
            let scale = simd.avx._mm256_set1_ps(scale * scales[i]);
            sums[chain] = simd.fma._mm256_fmadd_ps(scale, fours, sums[chain]);
        }
    }

    #[inline(always)]
    fn numbers(self, block: &[u8; BYTES]) -> __m256i {
        let Self(simd) = self;
        if let Some(bytes) = block[2..].first_chunk::<32>() {
            return pulp::cast(*bytes);
        }
        let Some(halves) = block[2..].first_chunk::<16>() else { return simd.avx._mm256_setzero_si256() };
        let halves: __m128i = pulp::cast(*halves);
        let both = simd.avx._mm256_set_m128i(simd.sse2._mm_srli_epi16::<4>(halves), halves);
        let unsigned = simd.avx2._mm256_and_si256(both, simd.avx._mm256_set1_epi8(15));
        simd.avx2._mm256_sub_epi8(unsigned, simd.avx._mm256_set1_epi8(8))
    }
}

#[derive(Clone, Copy)]
struct Q4K(V3);

/// Spreads the 16-bit scale of a group over a whole vector.
const SPREAD: [[u8; 32]; Q4K_GROUPS] = {
    let mut spread = [[0; 32]; Q4K_GROUPS];
    let mut at = 0;
    while at < 32 * Q4K_GROUPS {
        spread[at / 32][at % 32] = (2 * (at / 32) + at % 2) as u8;
        at += 1;
    }
    spread
};

impl Kernel for Q4K {
    #[inline(always)]
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R] {
        let simd = self.0;
        let (blocks, _) = weights.as_chunks::<{ BlockFormat::Q4_K.block_bytes() }>();
        let mut sums = [simd.avx._mm256_setzero_ps(); R];
        let mut offsets = [simd.sse._mm_setzero_ps(); R];
        let rows = rows.map(|row| {
            let (numbers, sums) = (row.numbers.as_chunks::<Q4K_GROUPS>().0, row.sums.as_chunks::<Q4K_GROUPS>().0);
            (&numbers[..blocks.len()], &sums[..blocks.len()], &row.scales[..blocks.len()])
        });
        for (i, block) in blocks.iter().enumerate() {
            let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
            let min_scale = widen_finite_f16(u16::from_le_bytes([block[2], block[3]]));
            let (scales, mins) = scales_and_mins(block);
            let products = self.products(block, scales, rows.map(|(numbers, _, _)| &numbers[i]));
            let mins = simd.sse4_1._mm_cvtepu8_epi16(pulp::cast([mins, [0; Q4K_GROUPS]]));
            for r in 0..R {
                let (_, group_sums, x_scales) = rows[r];
                let product = simd.avx._mm256_cvtepi32_ps(products[r]);
                let scale = simd.avx._mm256_set1_ps(scale * x_scales[i]);
                sums[r] = simd.fma._mm256_fmadd_ps(scale, product, sums[r]);
                let offset = simd.sse2._mm_madd_epi16(mins, pulp::cast(group_sums[i]));
                let scale = simd.sse._mm_set1_ps(min_scale * x_scales[i]);
                offsets[r] = simd.fma._mm_fmadd_ps(scale, simd.sse2._mm_cvtepi32_ps(offset), offsets[r]);
            }
        }
        let mut out = [0f32; R];
        for r in 0..R {
            let [a, b, c, d]: [f32; 4] = pulp::cast(offsets[r]);
            out[r] = sum(sums[r]) - ((a + c) + (b + d));
        }
        out
    }
}

impl Q4K {
    /// Sums of the products of a block, each group's times its scale.
    #[inline(always)]
    fn products<const R: usize>(
        self,
        block: &[u8; BlockFormat::Q4_K.block_bytes()],
        scales: [u8; Q4K_GROUPS],
        rows: [&[[i8; 32]; Q4K_GROUPS]; R],
    ) -> [__m256i; R] {
        let Self(simd) = self;
        let mut products = [simd.avx._mm256_setzero_si256(); R];
        let scales = simd.sse4_1._mm_cvtepu8_epi16(pulp::cast([scales, [0; Q4K_GROUPS]]));
        let scales = simd.avx2._mm256_broadcastsi128_si256(scales);
        let lower = simd.avx._mm256_set1_epi8(15);
        let (twos, _) = block[16..].as_chunks::<32>();
        for pair in 0..Q4K_GROUPS / 2 {
            let two: __m256i = pulp::cast(twos[pair]);
            let low = simd.avx2._mm256_and_si256(two, lower);
            let high = simd.avx2._mm256_and_si256(simd.avx2._mm256_srli_epi16::<4>(two), lower);
            for (group, unsigned) in [(2 * pair, low), (2 * pair + 1, high)] {
                let scale = simd.avx2._mm256_shuffle_epi8(scales, pulp::cast(SPREAD[group]));
                for r in 0..R {
                    let twos = simd.avx2._mm256_maddubs_epi16(unsigned, pulp::cast(rows[r][group]));
                    products[r] = simd.avx2._mm256_add_epi32(products[r], simd.avx2._mm256_madd_epi16(scale, twos));
                }
            }
        }
        products
    }
}

#[inline(always)]
fn sum(vector: __m256) -> f32 {
    let mut sums: [f32; 8] = pulp::cast(vector);
    cpu::sum(&mut sums)
}

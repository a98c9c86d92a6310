//! The products as their formats define them.

use vlm_catalog::quantization::BlockFormat;

use super::super::activations::{GROUP, Row};
use super::{BlockProducts, Kernel, Q4K_GROUPS, scales_and_mins};
use crate::ops::element::widen_finite_f16;

/// See [`super::Kernels::run`].
pub fn run(products: BlockProducts<'_>) {
    match products.format {
        BlockFormat::Q8_0 => products.compute(Q8_0),
        BlockFormat::Q4_0 => products.compute(Q4_0),
        BlockFormat::Q4_K => products.compute(Q4K),
    }
}

#[derive(Clone, Copy)]
struct Q8_0;

impl Kernel for Q8_0 {
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R] {
        let mut sums = [0f32; R];
        let (blocks, _) = weights.as_chunks::<{ BlockFormat::Q8_0.block_bytes() }>();
        for (i, block) in blocks.iter().enumerate() {
            let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let products = block[2..].iter().zip(&row.numbers[i]);
                let product: i32 = products.map(|(w, x)| i32::from(w.cast_signed()) * i32::from(*x)).sum();
                *sum += scale * row.scales[i] * product as f32;
            }
        }
        sums
    }
}

#[derive(Clone, Copy)]
struct Q4_0;

impl Kernel for Q4_0 {
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R] {
        let mut sums = [0f32; R];
        let (blocks, _) = weights.as_chunks::<{ BlockFormat::Q4_0.block_bytes() }>();
        for (i, block) in blocks.iter().enumerate() {
            let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let product = nibbles(&block[2..], &row.numbers[i]) - 8 * i32::from(row.sums[i]);
                *sum += scale * row.scales[i] * product as f32;
            }
        }
        sums
    }
}

/// The lower halves of bytes with the first numbers, the upper ones with the others.
fn nibbles(bytes: &[u8], numbers: &[i8; GROUP]) -> i32 {
    let (low, high) = numbers.split_at(GROUP / 2);
    let products = bytes.iter().zip(low.iter().zip(high));
    products
        .map(|(two, (low, high))| i32::from(two & 15) * i32::from(*low) + i32::from(two >> 4) * i32::from(*high))
        .sum()
}

#[derive(Clone, Copy)]
struct Q4K;

impl Kernel for Q4K {
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R] {
        let mut sums = [0f32; R];
        let (blocks, _) = weights.as_chunks::<{ BlockFormat::Q4_K.block_bytes() }>();
        for (i, block) in blocks.iter().enumerate() {
            let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
            let min_scale = widen_finite_f16(u16::from_le_bytes([block[2], block[3]]));
            let (scales, mins) = scales_and_mins(block);
            for (sum, row) in sums.iter_mut().zip(rows) {
                let (mut product, mut offset) = (0, 0);
                for group in 0..Q4K_GROUPS {
                    let at = i * Q4K_GROUPS + group;
                    let shift = 4 * (group % 2);
                    let twos = &block[16 + group / 2 * GROUP..][..GROUP];
                    let numbers = twos.iter().zip(&row.numbers[at]);
                    let dot: i32 = numbers.map(|(two, x)| i32::from(two >> shift & 15) * i32::from(*x)).sum();
                    product += i32::from(scales[group]) * dot;
                    offset += i32::from(mins[group]) * i32::from(row.sums[at]);
                }
                *sum += row.scales[i] * (scale * product as f32 - min_scale * offset as f32);
            }
        }
        sums
    }
}

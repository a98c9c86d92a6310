//! Rows of activations in 8 bits, for products with quantised weights: blocks of 32 numbers beside Q8_0 and Q4_0, of
//! 256 beside Q4_K (as the Q8_0 and Q8_K of GGUF, with scales in f32). Not stored anywhere.

use pulp::{Simd, WithSimd};
use vlm_catalog::quantization::BlockFormat;

use crate::ops::cpu;

/// Numbers whose sum is kept.
pub const GROUP: usize = 32;

/// Quantised rows.
pub struct Activations {
    inner: usize,
    block: usize,
    numbers: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Its numbers, from −127 to 127.
    pub numbers: &'a [[i8; GROUP]],
    /// The scale of each block.
    pub scales: &'a [f32],
    /// The sum of each group of numbers.
    pub sums: &'a [i16],
}

impl Activations {
    /// Quantises rows of `inner` numbers for products with weights in `format`.
    pub fn new(x: &[f32], inner: usize, format: BlockFormat) -> Self {
        let block = format.block_len();
        let mut numbers = vec![0; x.len()];
        let mut scales = vec![0.0; x.len() / block];
        for ((x, numbers), scale) in x.chunks_exact(block).zip(numbers.chunks_exact_mut(block)).zip(&mut scales) {
            *scale = cpu::vectorised(Quantise { x, numbers });
        }
        let sums = numbers.chunks_exact(GROUP).map(|group| group.iter().map(|n| i16::from(*n)).sum()).collect();
        Self { inner, block, numbers, scales, sums }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.numbers.len() / self.inner
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> Row<'_> {
        let part = |size: usize| r * self.inner / size..(r + 1) * self.inner / size;
        Row {
            numbers: self.numbers[part(1)].as_chunks().0,
            scales: &self.scales[part(self.block)],
            sums: &self.sums[part(GROUP)],
        }
    }
}

/// Writes a block and gives its scale, which is not finite either when a number is not: so that it is not lost.
struct Quantise<'a> {
    x: &'a [f32],
    numbers: &'a mut [i8],
}

impl WithSimd for Quantise<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> f32 {
        // Magnitudes are ordered as their bits are; those of what is not finite are the largest.
        let largest = self.x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
        let scale = f32::from_bits(largest) / 127.0;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        for (number, x) in self.numbers.iter_mut().zip(self.x) {
            *number = (x * inverse).round_ties_even() as i8;
        }
        scale
    }
}

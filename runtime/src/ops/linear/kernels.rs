//! Products of quantised weights and quantised activations in integers, portable and with 256-bit instructions where
//! the processor has them.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

use vlm_catalog::quantization::BlockFormat;

use super::activations::{Activations, Row};

/// Groups of 32 numbers with a scale and a minimum of their own in a block of Q4_K.
pub const Q4K_GROUPS: usize = 8;

/// Which instructions to use.
#[derive(Clone, Copy, Debug)]
pub enum Kernels {
    /// Those of every processor.
    Portable,
    /// 256 bits wide.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
}

/// `columns[o · rows + r]` becomes the product of row `o` of the weights and row `r` of the activations.
pub struct BlockProducts<'a> {
    pub format: BlockFormat,
    pub weights: &'a [u8],
    pub row_bytes: usize,
    pub activations: &'a Activations,
    pub columns: &'a mut [f32],
}

/// The products of one row of weights in some format.
trait Kernel: Copy {
    /// With `R` rows of activations.
    fn dots<const R: usize>(self, weights: &[u8], rows: [Row<'_>; R]) -> [f32; R];
}

impl Kernels {
    /// The fastest that this processor can do.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Portable
    }

    /// Computes `products`.
    pub fn run(self, products: BlockProducts<'_>) {
        match self {
            Self::Portable => portable::run(products),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => avx2::run(simd, products),
        }
    }
}

impl BlockProducts<'_> {
    #[inline(always)]
    fn compute(self, kernel: impl Kernel) {
        let Self { weights, row_bytes, activations, columns, .. } = self;
        let rows = activations.rows();
        let quads = rows / 4 * 4;
        for (column, weights) in columns.chunks_exact_mut(rows).zip(weights.chunks_exact(row_bytes)) {
            for r in (0..quads).step_by(4) {
                let four = [r, r + 1, r + 2, r + 3].map(|r| activations.row(r));
                column[r..r + 4].copy_from_slice(&kernel.dots(weights, four));
            }
            for (r, y) in column.iter_mut().enumerate().skip(quads) {
                [*y] = kernel.dots(weights, [activations.row(r)]);
            }
        }
    }
}

/// The 6-bit scales and minima of a block of Q4_K: the lower bits of the first four of each stand in a byte each,
/// those of the last four share bytes, and their upper two bits fill the bytes of the first four.
#[inline(always)]
pub fn scales_and_mins(block: &[u8; BlockFormat::Q4_K.block_bytes()]) -> ([u8; Q4K_GROUPS], [u8; Q4K_GROUPS]) {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (a, b, c) = (word(4), word(8), word(12));
    let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let join = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
    (join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | upper(a)), join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | upper(b)))
}

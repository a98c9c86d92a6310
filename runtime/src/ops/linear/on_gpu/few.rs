//! The launch of products of few rows in 16 bits (`kernels/few_rows.cu`), and what of them fits a GPU.

use candle_core::cuda::cudarc::driver::CudaView;
use candle_core::{CudaDevice, DType, Result};

use super::ring::{ROWS, Ring, THREADS};
use crate::ops::cuda::{FEW_ROWS, Format, Kernel, Limits, blocks, launch};

/// Most rows.
pub const MOST_ROWS: usize = ROWS;

/// What becomes of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// They are the result, with the bias: `[rows, outer]` in f32.
    Plain,
    /// They are added, with the bias, to what is there.
    Added,
    /// Those of the first half of the weights are gates: their `SiLU` times those of the second, in the weights' format.
    Gated,
}

/// Sizes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub rows: usize,
    pub inner: usize,
    /// Numbers of a row of the result.
    pub outer: usize,
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    sizes: Sizes,
    what: What,
    /// What is where in shared memory.
    ring: Ring,
    /// Blocks.
    processors: usize,
}

impl Plan {
    /// The plan for a GPU, if the kernel takes such sizes there.
    pub fn new(sizes: Sizes, what: What, limits: Limits) -> Option<Self> {
        let Sizes { rows, inner, outer } = sizes;
        let taken = (1..=MOST_ROWS).contains(&rows) && inner > 0 && inner.is_multiple_of(8);
        if !taken || outer == 0 {
            return None;
        }
        let tile = if what == What::Gated { 8 } else { 16 };
        let tiles = outer.div_ceil(limits.processors.max(1)).div_ceil(tile);
        let ring = Ring::of(sizes, None, tiles, limits)?;
        Some(Self { sizes, what, ring, processors: limits.processors })
    }

    /// Launches the product of weights `[outer, inner]`, twice `outer` where gated, and rows `[rows, inner]`. `bias` and
    /// `out` are where they are, no bias at zero.
    pub fn launch<T: Format>(
        &self,
        device: &CudaDevice,
        w: &CudaView<'_, T>,
        x: &CudaView<'_, T>,
        bias: u64,
        out: u64,
    ) -> Result<()> {
        debug_assert!(T::DTYPE != DType::F32);
        let what = match self.what {
            What::Plain => "plain",
            What::Added => "added",
            What::Gated => "gated",
        };
        let Sizes { rows, inner, outer } = self.sizes;
        let name = format!("few_rows_{}_{what}", T::name());
        let Ring { phase, rows_at, stages_at, stages, bytes } = self.ring;
        let kernel = Kernel::early(device, &FEW_ROWS, &name)?.with_shared(bytes)?;
        let config = blocks([self.processors, 1, 1], THREADS, bytes / size_of::<f32>())?;
        let [inner, outer, rows, phase] = [inner, outer, rows, phase].map(|size| size as u32);
        let [rows_at, stages_at, stages] = [rows_at, stages_at, stages].map(|size| size as u32);
        launch!(kernel, config, w, x, &bias, &out, &inner, &outer, &rows, &phase, &rows_at, &stages_at, &stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100.
    const GPU: Limits = Limits { processors: 132, shared: 227 << 10 };

    #[test]
    fn sizes_that_the_kernel_does_not_take_have_no_plan() {
        let has = |rows, inner, outer| Plan::new(Sizes { rows, inner, outer }, What::Gated, GPU).is_some();
        assert!(has(1, 8, 1) && has(8, 4096, 11_008));
        assert!(!has(0, 8, 4) && !has(9, 8, 4) && !has(1, 12, 4) && !has(1, 0, 4) && !has(1, 8, 0));
    }
}

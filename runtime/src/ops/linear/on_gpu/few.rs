//! The launch of products of few rows in 16 bits (`kernels/few_rows.cu`), and what of them fits a GPU.

use candle_core::cuda::cudarc::driver::CudaView;
use candle_core::{CudaDevice, DType, Result};

use super::ring::{
    ALIGNED, ALL_SUMS, BARRIERS, MOST_STAGES, ROWS, SUMS, THREADS, WANTED_STAGES, phases, row_bytes, stage_bytes, tiles,
};
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
    /// Numbers of a row that are in shared memory at a time.
    phase: usize,
    /// Where rows begin there, and the stages of the ring.
    rows_at: usize,
    stages_at: usize,
    stages: usize,
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
        let with = |phase: usize, fewest: usize| {
            let kept = if phase < inner { tiles(outer, limits.processors) * SUMS } else { 0 };
            let rows_at = (BARRIERS + ALL_SUMS + kept).next_multiple_of(ALIGNED);
            let stages_at = (rows_at + row_bytes(phase, None, rows)).next_multiple_of(ALIGNED);
            let stages = (limits.shared.checked_sub(stages_at)? / stage_bytes(None)).min(MOST_STAGES);
            let processors = limits.processors;
            (stages >= fewest).then_some(Self { sizes, what, phase, rows_at, stages_at, stages, processors })
        };
        [WANTED_STAGES, 2].into_iter().find_map(|fewest| phases(inner, None).find_map(|phase| with(phase, fewest)))
    }

    /// Bytes of shared memory.
    fn shared(&self) -> usize {
        self.stages_at + self.stages * stage_bytes(None)
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
        let kernel = Kernel::early(device, &FEW_ROWS, &name)?.with_shared(self.shared())?;
        let config = blocks([self.processors, 1, 1], THREADS, self.shared() / size_of::<f32>())?;
        let [inner, outer, rows, phase] = [inner, outer, rows, self.phase].map(|size| size as u32);
        let [rows_at, stages_at, stages] = [self.rows_at, self.stages_at, self.stages].map(|size| size as u32);
        launch!(kernel, config, w, x, &bias, &out, &inner, &outer, &rows, &phase, &rows_at, &stages_at, &stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100, and an L4.
    const GPUS: [Limits; 2] =
        [Limits { processors: 132, shared: 227 << 10 }, Limits { processors: 58, shared: 99 << 10 }];

    #[test]
    fn rows_are_in_memory_whole_where_there_is_room_for_the_ring_and_else_in_equal_parts() {
        let phases = |rows, inner, gpu: usize| {
            let plan = Plan::new(Sizes { rows, inner, outer: 4096 }, What::Plain, GPUS[gpu]).unwrap();
            assert!(plan.shared() <= GPUS[gpu].shared, "{plan:?}");
            assert!(plan.stages >= if gpu == 0 { WANTED_STAGES } else { 2 }, "{plan:?}");
            plan.phase
        };
        assert_eq!([4096, 11_008, 18_944].map(|inner| phases(1, inner, 0)), [4096, 11_264, 18_944]);
        assert_eq!([4096, 11_008, 13_824, 18_944].map(|inner| phases(8, inner, 0)), [4096, 5632, 7168, 6656]);
        assert_eq!([4096, 11_008, 8].map(|inner| phases(1, inner, 1)), [4096, 11_264, 512]);
    }

    #[test]
    fn sizes_that_the_kernel_does_not_take_have_no_plan() {
        let has = |rows, inner, outer| Plan::new(Sizes { rows, inner, outer }, What::Gated, GPUS[0]).is_some();
        assert!(has(1, 8, 1) && has(8, 4096, 11_008));
        assert!(!has(0, 8, 4) && !has(9, 8, 4) && !has(1, 12, 4) && !has(1, 0, 4) && !has(1, 8, 0));
        // So many outputs have no room for their sums between two parts of a row.
        assert!(Plan::new(Sizes { rows: 8, inner: 18_944, outer: 1 << 21 }, What::Plain, GPUS[1]).is_none());
    }
}

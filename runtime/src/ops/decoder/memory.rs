//! What a block of the kernel that runs all layers has in its shared memory: barriers, sums, rows of products or attention in the
//! same place, and what is left for weights on their way (`kernels/decoder.cuh`, `kernels/ring.cuh`).

use candle_core::DType;
use vlm_catalog::quantization::BlockFormat;

use super::Sizes;
use crate::ops::attention::worker_bytes;
use crate::ops::cuda::Limits;
use crate::ops::linear::ring::{
    ALIGNED, ALL_SUMS, BARRIERS, MOST_STAGES, ROWS, SUMS, WANTED_STAGES, phases, row_bytes, stage_bytes, tiles,
};

/// Groups of threads of a block that attend by themselves.
pub const GROUPS: usize = 2;
/// Where what is, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Numbers of the stream, of what is mixed and of what is gated that are there at a time.
    pub phases: [usize; 3],
    /// Where rows of products begin, and the stages of the ring.
    pub rows_at: usize,
    pub stages_at: usize,
    /// Stages of the ring.
    pub stages: usize,
    /// All of it.
    pub bytes: usize,
    /// Multiprocessors, each of which has a block.
    pub processors: usize,
}

impl Memory {
    /// Of `rows` rows, with weights in 16 bits or in `format`, if the kernel takes such sizes on a GPU with those limits.
    pub fn of(sizes: &Sizes, format: Option<BlockFormat>, rows: usize, limits: Limits) -> Option<Self> {
        // The partners of quantised gates begin with a tile of their own.
        if rows == 0 || rows > ROWS || format.is_some() && !sizes.inner.is_multiple_of(8) {
            return None;
        }
        (2..=WANTED_STAGES).rev().find_map(|stages| Self::with(sizes, format, rows, limits, stages))
    }

    /// The same with at least so many stages.
    fn with(
        sizes: &Sizes,
        format: Option<BlockFormat>,
        rows: usize,
        limits: Limits,
        fewest_stages: usize,
    ) -> Option<Self> {
        let stage = stage_bytes(format);
        let attention = BARRIERS + GROUPS * worker_bytes(sizes.head_dim, DType::F16.into(), 1);
        let kept = SUMS * tiles(sizes.width, limits.processors);
        let rows_at = (BARRIERS + ALL_SUMS + kept).next_multiple_of(ALIGNED);
        let room = limits.shared.checked_sub(rows_at + fewest_stages * stage + ALIGNED)?;
        let phases = [sizes.width, sizes.mixed(), sizes.inner].map(|inner| phase(inner, format, rows, room));
        let [Some(width), Some(mixed), Some(inner)] = phases else { return None };
        // Sums are kept for as many tiles as the stream has, which all that is in parts is added to.
        if width < sizes.width {
            return None;
        }
        let phases = [width, mixed, inner];
        let largest = phases.into_iter().map(|phase| row_bytes(phase, format, rows)).max()?;
        let stages_at = (rows_at + largest).max(attention).next_multiple_of(ALIGNED);
        let stages = (limits.shared.checked_sub(stages_at)? / stage).min(MOST_STAGES);
        let bytes = stages_at + stages * stage;
        (stages >= fewest_stages).then_some(Self {
            phases,
            rows_at,
            stages_at,
            stages,
            bytes,
            processors: limits.processors,
        })
    }
}

/// The most numbers of a row of `inner` that fit `room` bytes, in equal parts.
fn phase(inner: usize, format: Option<BlockFormat>, rows: usize, room: usize) -> Option<usize> {
    phases(inner, format).find(|phase| row_bytes(*phase, format, rows) <= room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::linear::ring::unit;

    const H200: Limits = Limits { processors: 132, shared: 227 << 10 };
    const L4: Limits = Limits { processors: 58, shared: 99 << 10 };
    const LLAVA: Sizes = Sizes { width: 4096, heads: 32, kv_heads: 32, head_dim: 128, inner: 11_008 };
    const LARGE: Sizes = Sizes { width: 5120, heads: 40, kv_heads: 40, head_dim: 128, inner: 13_824 };
    const INTERN: Sizes = Sizes { width: 3584, heads: 28, kv_heads: 4, head_dim: 128, inner: 18_944 };
    const FORMATS: [Option<BlockFormat>; 4] =
        [None, Some(BlockFormat::Q8_0), Some(BlockFormat::Q4_0), Some(BlockFormat::Q4_K)];

    #[test]
    fn everything_fits_beside_a_ring_that_holds_what_is_on_its_way() {
        for sizes in [LLAVA, LARGE, INTERN] {
            for (format, rows) in FORMATS.into_iter().flat_map(|format| (1..=8).map(move |rows| (format, rows))) {
                let memory = Memory::of(&sizes, format, rows, H200).unwrap();
                assert!(memory.bytes <= H200.shared && memory.stages >= WANTED_STAGES, "{memory:?}");
                for (phase, inner) in memory.phases.into_iter().zip([sizes.width, sizes.mixed(), sizes.inner]) {
                    assert!(phase.is_multiple_of(unit(format)), "{memory:?}");
                    assert!(memory.rows_at + row_bytes(phase, format, rows) <= memory.stages_at, "{memory:?}");
                    // One row is there whole.
                    assert!(rows > 1 || format.is_some() || phase >= inner, "{memory:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_has_no_plan() {
        assert!(Memory::of(&LLAVA, None, 1, L4).is_none());
        assert!(Memory::of(&LLAVA, None, 9, H200).is_none() && Memory::of(&LLAVA, None, 0, H200).is_none());
        let small = Sizes { width: 64, heads: 4, kv_heads: 2, head_dim: 64, inner: 72 };
        for format in FORMATS {
            assert!(Memory::of(&small, format, 3, L4).is_some());
        }
        let odd = Sizes { inner: 76, ..small };
        assert!(Memory::of(&odd, Some(BlockFormat::Q8_0), 3, H200).is_none());
    }
}

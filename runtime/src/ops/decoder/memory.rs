//! What a block of the kernel that runs all layers has in its shared memory: barriers, sums, rows of products or attention in the
//! same place, and what is left for weights on their way (`kernels/decoder.cuh`, `kernels/ring.cuh`).

use candle_core::DType;
use vlm_catalog::quantization::BlockFormat;

use super::Sizes;
use crate::ops::attention::worker_bytes;
use crate::ops::cuda::Limits;
use crate::ops::linear::ring::{
    ALIGNED, ALL_SUMS, BARRIERS, MOST_STAGES, ROWS, SUMS, WANTED_STAGES, phases, row_bytes, stage_bytes,
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
    /// Of `rows` rows, with weights in `format`, if the kernel takes such sizes on a GPU with those limits.
    pub fn of(sizes: &Sizes, format: BlockFormat, rows: usize, limits: Limits) -> Option<Self> {
        // The partners of gates begin with a tile of their own.
        if rows == 0 || rows > ROWS || !sizes.inner.is_multiple_of(8) {
            return None;
        }
        (2..=WANTED_STAGES).rev().find_map(|stages| Self::with(sizes, format, limits, stages))
    }

    /// The same with at least so many stages.
    fn with(sizes: &Sizes, format: BlockFormat, limits: Limits, fewest_stages: usize) -> Option<Self> {
        let stage = stage_bytes(Some(format));
        let attention = BARRIERS + GROUPS * worker_bytes(sizes.head_dim, DType::F16.into(), 1);
        let kept = SUMS * (sizes.width.div_ceil(8).div_ceil(limits.processors.max(1)) + 1);
        let rows_at = (BARRIERS + ALL_SUMS + kept).next_multiple_of(ALIGNED);
        let room = limits.shared.checked_sub(rows_at + fewest_stages * stage + ALIGNED)?;
        let phases = [sizes.width, sizes.mixed(), sizes.inner].map(|inner| phase(inner, format, room));
        let [Some(width), Some(mixed), Some(inner)] = phases else { return None };
        // Sums are kept for as many tiles as the stream has, which all that is in parts is added to.
        if width < sizes.width {
            return None;
        }
        let phases = [width, mixed, inner];
        let largest = phases.into_iter().map(|phase| row_bytes(phase, Some(format), ROWS)).max()?;
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
fn phase(inner: usize, format: BlockFormat, room: usize) -> Option<usize> {
    phases(inner, Some(format)).find(|phase| row_bytes(*phase, Some(format), ROWS) <= room)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Limits = Limits { processors: 132, shared: 227 << 10 };
    const L4: Limits = Limits { processors: 58, shared: 99 << 10 };
    const LLAVA: Sizes = Sizes { width: 4096, heads: 32, kv_heads: 32, head_dim: 128, inner: 11_008 };
    const LARGE: Sizes = Sizes { width: 5120, heads: 40, kv_heads: 40, head_dim: 128, inner: 13_824 };
    const INTERN: Sizes = Sizes { width: 3584, heads: 28, kv_heads: 4, head_dim: 128, inner: 18_944 };
    const FORMATS: [BlockFormat; 3] = [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4_K];

    #[test]
    fn everything_fits_beside_a_ring_that_holds_what_is_on_its_way() {
        for (sizes, format) in
            [LLAVA, LARGE, INTERN].into_iter().flat_map(|sizes| FORMATS.map(|format| (sizes, format)))
        {
            let memory = Memory::of(&sizes, format, 8, H200).unwrap();
            assert!(memory.bytes <= H200.shared && memory.stages >= WANTED_STAGES, "{memory:?}");
            for (phase, inner) in memory.phases.into_iter().zip([sizes.width, sizes.mixed(), sizes.inner]) {
                assert!(phases(inner, Some(format)).any(|one| one == phase), "{memory:?}");
                assert!(memory.rows_at + row_bytes(phase, Some(format), ROWS) <= memory.stages_at, "{memory:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_has_no_plan() {
        let small = Sizes { width: 64, heads: 4, kv_heads: 2, head_dim: 64, inner: 72 };
        for format in FORMATS {
            assert!(Memory::of(&LLAVA, format, 9, H200).is_none() && Memory::of(&LLAVA, format, 0, H200).is_none());
            assert!(Memory::of(&small, format, 3, L4).is_some());
        }
        let odd = Sizes { inner: 76, ..small };
        assert!(Memory::of(&odd, BlockFormat::Q8_0, 3, H200).is_none());
    }
}

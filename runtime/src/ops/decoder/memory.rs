//! What a block of the kernel that runs all layers has in its shared memory: barriers, sums, rows of products or attention in the
//! same place, and what is left for weights on their way (`kernels/decoder.cuh`, `kernels/ring.cuh`).

use candle_core::DType;
use vlm_catalog::quantization::BlockFormat;

use super::Sizes;
use crate::ops::attention::worker_bytes;
use crate::ops::cuda::Limits;
use crate::ops::linear::{chunk_width, rounded_bytes};

/// Groups of threads of a block that attend by themselves.
pub const GROUPS: usize = 2;
/// Most stages of the ring, and how many are wanted: fewer hold less than what is on its way from memory.
const MOST_STAGES: usize = 16;
const WANTED_STAGES: usize = 6;
/// Bytes of their barriers, of the sums of all warps, twice, and of those of a tile.
const BARRIERS: usize = 2 * MOST_STAGES * 8;
const ALL_SUMS: usize = 2 * 8 * SUMS;
const SUMS: usize = 512;
/// Numbers of a row of weights in 16 bits in a stage, rows of it, and numbers between them and between rows of products.
const COLUMNS: usize = 512;
const OUTPUTS: usize = 16;
const PAD: usize = 8;
/// Chunks of quantised weights in a stage, and rows that there is room for beside them.
const CHUNKS: usize = 16;
const ROWS: usize = 8;
/// What everything begins at a multiple of.
const ALIGNED: usize = 128;

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
        let stage = match format {
            None => OUTPUTS * (COLUMNS + PAD) * 2,
            // Of eight outputs each.
            Some(format) => CHUNKS * 8 * chunk_width(format) / format.block_len() * format.block_bytes(),
        };
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

/// Tiles of outputs that a block has at most; those of quantised weights are half as large, and so are their sums.
fn tiles(outer: usize, processors: usize) -> usize {
    outer.div_ceil(8).div_ceil(processors.max(1)) + 1
}

/// The most numbers of a row of `inner` that fit `room` bytes, in equal parts.
fn phase(inner: usize, format: Option<BlockFormat>, rows: usize, room: usize) -> Option<usize> {
    let unit = format.map_or(COLUMNS, chunk_width);
    let phases = (1..=inner.div_ceil(unit)).map(|parts| inner.div_ceil(parts).next_multiple_of(unit));
    phases.into_iter().find(|phase| row_bytes(*phase, format, rows) <= room)
}

fn row_bytes(phase: usize, format: Option<BlockFormat>, rows: usize) -> usize {
    match format {
        None => rows * (phase + PAD) * 2,
        Some(format) => rounded_bytes(format, ROWS, phase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    assert!(phase.is_multiple_of(format.map_or(COLUMNS, chunk_width)), "{memory:?}");
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

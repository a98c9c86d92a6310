//! What a block has in its shared memory whose weights come in a ring (`kernels/ring.cuh`): barriers, sums, rows, stages.

use vlm_catalog::quantization::BlockFormat;

use super::few::Sizes;
use super::few_quantised::rounded_bytes;
use super::packed::width;
use crate::ops::cuda::Limits;

/// Threads of a block: those that compute, and those that send weights.
pub const THREADS: usize = 256 + 128;
/// Most rows.
pub const ROWS: usize = 8;
/// Most stages of the ring, and how many are wanted: fewer hold less than what is on its way from memory.
pub const MOST_STAGES: usize = 16;
pub const WANTED_STAGES: usize = 6;
/// Bytes of their barriers, of the sums of all warps, twice, and of those of a tile.
pub const BARRIERS: usize = 2 * MOST_STAGES * 8;
pub const ALL_SUMS: usize = 2 * 8 * SUMS;
pub const SUMS: usize = 512;
/// What everything begins at a multiple of.
pub const ALIGNED: usize = 128;
/// Numbers of a row of weights in 16 bits in a stage, rows of it, and numbers between them and between rows of products.
const COLUMNS: usize = 512;
const OUTPUTS: usize = 16;
const PAD: usize = 8;
/// Chunks of quantised weights in a stage, each of eight outputs.
const CHUNKS: usize = 16;

/// What is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Numbers of a row that are there at a time.
    pub phase: usize,
    /// Where rows begin, and the stages of the ring.
    pub rows_at: usize,
    pub stages_at: usize,
    /// Stages of the ring.
    pub stages: usize,
    /// All of it.
    pub bytes: usize,
}

impl Ring {
    /// For products with weights in 16 bits or in `format`, on a GPU with those limits, if they fit: rows whole, or in as few
    /// equal parts as leave room for the stages that are wanted, or for two. `tiles`: of outputs, that a block has at most.
    pub fn of(sizes: Sizes, format: Option<BlockFormat>, tiles: usize, limits: Limits) -> Option<Self> {
        let Sizes { rows, inner, .. } = sizes;
        let stage = stage_bytes(format);
        let with = |phase: usize, fewest: usize| {
            let kept = if phase < inner { tiles * SUMS } else { 0 };
            let rows_at = (BARRIERS + ALL_SUMS + kept).next_multiple_of(ALIGNED);
            let stages_at = (rows_at + row_bytes(phase, format, rows)).next_multiple_of(ALIGNED);
            let stages = (limits.shared.checked_sub(stages_at)? / stage).min(MOST_STAGES);
            let bytes = stages_at + stages * stage;
            (stages >= fewest).then_some(Self { phase, rows_at, stages_at, stages, bytes })
        };
        [WANTED_STAGES, 2].into_iter().find_map(|fewest| phases(inner, format).find_map(|phase| with(phase, fewest)))
    }
}

/// Bytes of a stage.
pub fn stage_bytes(format: Option<BlockFormat>) -> usize {
    match format {
        None => OUTPUTS * (COLUMNS + PAD) * 2,
        Some(format) => CHUNKS * 8 * width(format) / format.block_len() * format.block_bytes(),
    }
}

/// Bytes of `phase` numbers of each of `rows` rows.
pub fn row_bytes(phase: usize, format: Option<BlockFormat>, rows: usize) -> usize {
    match format {
        None => rows * (phase + PAD) * 2,
        Some(format) => rounded_bytes(format, ROWS, phase),
    }
}

/// Numbers of rows of `inner` whole, then in two equal parts, and so on.
pub fn phases(inner: usize, format: Option<BlockFormat>) -> impl Iterator<Item = usize> {
    let unit = format.map_or(COLUMNS, width);
    (1..=inner.div_ceil(unit)).map(move |parts| inner.div_ceil(parts).next_multiple_of(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Limits = Limits { processors: 132, shared: 227 << 10 };
    const L4: Limits = Limits { processors: 58, shared: 99 << 10 };
    const FORMATS: [Option<BlockFormat>; 4] =
        [None, Some(BlockFormat::Q8_0), Some(BlockFormat::Q4_0), Some(BlockFormat::Q4_K)];

    #[test]
    fn rows_are_in_memory_whole_where_there_is_room_for_the_ring_and_else_in_equal_parts() {
        let phases = |rows, inner, limits: Limits| {
            let ring = Ring::of(Sizes { rows, inner, outer: 4096 }, None, 2, limits).unwrap();
            assert!(ring.bytes <= limits.shared, "{ring:?}");
            assert!(ring.stages >= 2, "{ring:?}");
            ring.phase
        };
        assert!(
            Ring::of(Sizes { rows: 8, inner: 18_944, outer: 4096 }, None, 2, H200).unwrap().stages >= WANTED_STAGES
        );
        assert_eq!([4096, 11_008, 18_944].map(|inner| phases(1, inner, H200)), [4096, 11_264, 18_944]);
        assert_eq!([4096, 11_008, 13_824, 18_944].map(|inner| phases(8, inner, H200)), [4096, 5632, 7168, 6656]);
        assert_eq!([4096, 11_008, 8].map(|inner| phases(1, inner, L4)), [4096, 11_264, 512]);
    }

    #[test]
    fn all_formats_have_room_on_every_gpu() {
        for (format, limits) in FORMATS.into_iter().flat_map(|format| [H200, L4].map(|limits| (format, limits))) {
            for (inner, rows) in [4096, 13_824, 27_648].into_iter().flat_map(|inner| [(inner, 1), (inner, 8)]) {
                let ring = Ring::of(Sizes { rows, inner, outer: 5120 }, format, 12, limits).unwrap();
                assert!(ring.bytes <= limits.shared && ring.rows_at < ring.stages_at, "{ring:?}");
            }
        }
        // So many outputs have no room for their sums between two parts of a row.
        assert!(Ring::of(Sizes { rows: 8, inner: 18_944, outer: 1 << 21 }, None, 1 << 12, L4).is_none());
    }
}

//! What a block has in its shared memory whose weights come in a ring (`kernels/ring.cuh`, `kernels/streamed.cuh`).

use vlm_catalog::quantization::BlockFormat;

use super::{chunk_width, rounded_bytes};

/// Threads of a block: those that compute, and those that send weights.
pub const THREADS: usize = 256 + 128;
/// Rows of products.
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
/// Chunks of quantised weights in a stage.
const CHUNKS: usize = 16;

/// Bytes of a stage.
pub fn stage_bytes(format: Option<BlockFormat>) -> usize {
    match format {
        None => OUTPUTS * (COLUMNS + PAD) * 2,
        // Of eight outputs each.
        Some(format) => CHUNKS * 8 * chunk_width(format) / format.block_len() * format.block_bytes(),
    }
}

/// What parts of rows are a multiple of.
pub fn unit(format: Option<BlockFormat>) -> usize {
    format.map_or(COLUMNS, chunk_width)
}

/// Bytes of `phase` numbers of `rows` rows.
pub fn row_bytes(phase: usize, format: Option<BlockFormat>, rows: usize) -> usize {
    match format {
        None => rows * (phase + PAD) * 2,
        Some(format) => rounded_bytes(format, ROWS, phase),
    }
}

/// Numbers of rows of `inner` in equal parts, from one part on.
pub fn phases(inner: usize, format: Option<BlockFormat>) -> impl Iterator<Item = usize> {
    let unit = unit(format);
    (1..=inner.div_ceil(unit)).map(move |parts| inner.div_ceil(parts).next_multiple_of(unit))
}

/// Tiles of outputs that a block has at most; those of gated and of quantised outputs are eight.
pub fn tiles(outer: usize, processors: usize) -> usize {
    outer.div_ceil(8).div_ceil(processors.max(1)) + 1
}

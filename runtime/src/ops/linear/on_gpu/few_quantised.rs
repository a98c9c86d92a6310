//! The launch of products of few rows with quantised weights (`kernels/few_quantised.cu`), and what of them fits a GPU.

use std::iter::successors;

use candle_core::cuda::cudarc::driver::{CudaView, DevicePtr};
use candle_core::{CudaDevice, Result};
use vlm_catalog::footprint::GPU_FEW_QUANTISED_ROWS;
use vlm_catalog::quantization::BlockFormat;

use super::few::{Sizes, What};
use super::packed::{OUTPUTS, Packed, name, width};
use super::ring::{self, Ring};
use crate::ops::cuda::{FEW_QUANTISED, Kernel, Limits, THREADS as ROUNDING, blocks, launch, room};

/// Most rows.
pub const MOST_ROWS: usize = GPU_FEW_QUANTISED_ROWS as usize;
/// Most rows that each block rounds by itself. More of them are rounded once, for all blocks.
const ROUNDED_BY_BLOCKS: usize = 2;
/// Threads of a block.
const THREADS: usize = 512;
const WARPS: usize = THREADS / 32;

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    sizes: Sizes,
    what: What,
    format: BlockFormat,
    /// Rows that the kernel is made for, 8, 16, 32 or 64: of more of them so many at a time.
    room: usize,
    /// Numbers of a row that are in shared memory at a time.
    phase: usize,
    /// Bytes of shared memory.
    shared: usize,
    /// What is where there, of the kernel for the fewest rows, whose weights come in a ring.
    ring: Option<Ring>,
    /// Blocks.
    processors: usize,
}

impl Plan {
    /// The plan for a GPU, if the kernel takes such sizes there.
    pub fn new(format: BlockFormat, sizes: Sizes, what: What, limits: Limits) -> Option<Self> {
        let Sizes { rows, inner, outer } = sizes;
        // Partners begin with a tile of their own.
        let whole = what != What::Gated || outer.is_multiple_of(OUTPUTS);
        if !(1..=MOST_ROWS).contains(&rows) || inner == 0 || outer == 0 || !whole {
            return None;
        }
        let of_each = if what == What::Gated { 2 } else { 1 };
        let tiles = of_each * outer.div_ceil(OUTPUTS).div_ceil(limits.processors.max(1));
        let chunks = inner.div_ceil(width(format));
        // The fewer rows at a time, the less room is taken by their sums.
        let rooms = successors(Some(rows.next_power_of_two().max(OUTPUTS)), |room| Some(room / 2));
        rooms.take_while(|room| *room >= OUTPUTS).find_map(|room| {
            let processors = limits.processors;
            if room == ring::ROWS {
                let ring = Ring::of(sizes, Some(format), tiles, limits)?;
                let (phase, shared, ring) = (ring.phase, ring.bytes, Some(ring));
                return Some(Self { sizes, what, format, room, phase, shared, ring, processors });
            }
            let sums = room * OUTPUTS * size_of::<f32>();
            let bytes = |phase: usize| {
                // Sums of all warps, twice: one tile's are written while another's are read.
                let kept = if phase < inner { tiles * sums } else { 0 };
                rounded_bytes(format, room, phase) + 2 * WARPS * sums + kept
            };
            let phases = (1..=chunks).map(|parts| chunks.div_ceil(parts) * width(format));
            let phase = phases.into_iter().find(|phase| bytes(*phase) <= limits.shared)?;
            Some(Self { sizes, what, format, room, phase, shared: bytes(phase), ring: None, processors })
        })
    }

    /// What it computes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Launches the product of weights of `outer` outputs, twice as many where gated, and rows `[rows, inner]`, which begin at a
    /// multiple of 16 bytes. `bias` and `out` are where they are, no bias at zero.
    pub fn launch(
        &self,
        device: &CudaDevice,
        weights: &Packed,
        x: &CudaView<'_, f32>,
        bias: u64,
        out: u64,
    ) -> Result<()> {
        let Sizes { rows, inner, outer } = self.sizes;
        for first in (0..rows).step_by(self.room) {
            let rows = first..rows.min(first + self.room);
            let out = out + (first * outer * size_of::<f32>()) as u64;
            self.launch_some(device, weights, &x.slice(rows.start * inner..rows.end * inner), rows.len(), (bias, out))?;
        }
        Ok(())
    }

    fn launch_some(
        &self,
        device: &CudaDevice,
        weights: &Packed,
        x: &CudaView<'_, f32>,
        rows: usize,
        places: (u64, u64),
    ) -> Result<()> {
        let stream = device.cuda_stream();
        if rows <= ROUNDED_BY_BLOCKS && self.room == OUTPUTS {
            let (x, _x) = x.device_ptr(&stream);
            return self.multiply(device, weights, x, (rows, false), places);
        }
        let inner = self.sizes.inner;
        let parts = inner.div_ceil(self.phase);
        let rounded = room::<u8>(device, parts * rounded_bytes(self.format, self.room, self.phase))?;
        let kernel = Kernel::early(device, &FEW_QUANTISED, &format!("round_{}_{}", name(self.format), self.room))?;
        let eights = self.phase / 8 * self.room;
        let config = blocks([eights.div_ceil(ROUNDING), parts, 1], ROUNDING, 0)?;
        let [inner, count, phase] = [inner, rows, self.phase].map(|size| size as u32);
        launch!(kernel, config, x, &rounded, &inner, &count, &phase)?;
        let (place, _rounded) = rounded.device_ptr(&stream);
        self.multiply(device, weights, place, (rows, true), places)
    }

    fn multiply(
        &self,
        device: &CudaDevice,
        weights: &Packed,
        x: u64,
        (rows, rounded): (usize, bool),
        (bias, out): (u64, u64),
    ) -> Result<()> {
        let what = match self.what {
            What::Plain => "plain",
            What::Added => "added",
            What::Gated => "gated",
        };
        let kernel = format!("few_{}_{}_{what}", name(self.format), self.room);
        let kernel = Kernel::early(device, &FEW_QUANTISED, &kernel)?.with_shared(self.shared)?;
        let threads = if self.ring.is_some() { ring::THREADS } else { THREADS };
        let config = blocks([self.processors, 1, 1], threads, self.shared / size_of::<f32>())?;
        let Sizes { inner, outer, .. } = self.sizes;
        let [inner, outer, rows, phase] = [inner, outer, rows, self.phase].map(|size| size as u32);
        let Some(Ring { rows_at, stages_at, stages, .. }) = self.ring else {
            return launch!(kernel, config, weights.place(), &x, &bias, &out, &inner, &outer, &rows, &phase);
        };
        let [rounded, rows_at, stages_at, stages] =
            [usize::from(rounded), rows_at, stages_at, stages].map(|size| size as u32);
        launch!(
            kernel,
            config,
            weights.place(),
            &x,
            &bias,
            &out,
            &inner,
            &outer,
            &rows,
            &phase,
            &rounded,
            &rows_at,
            &stages_at,
            &stages
        )
    }
}

/// Bytes of `phase` numbers of each of `room` rows in 8 bits (`kernels/rounded.cuh`).
pub const fn rounded_bytes(format: BlockFormat, room: usize, phase: usize) -> usize {
    // Scales, and sums, are for whole tiles.
    let tiles = room.div_ceil(16);
    let (scaled, sums) = match format {
        BlockFormat::Q8_0 => (32, 0),
        BlockFormat::Q4_0 => (32, phase / 32 * tiles * 64),
        BlockFormat::Q4_K => (256, phase / 256 * tiles * 256),
    };
    phase * room + phase / scaled * tiles * 64 + sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100, and an L4.
    const GPUS: [Limits; 2] =
        [Limits { processors: 132, shared: 227 << 10 }, Limits { processors: 58, shared: 99 << 10 }];

    fn plan(format: BlockFormat, (rows, inner, outer): (usize, usize, usize), what: What, gpu: usize) -> Option<Plan> {
        Plan::new(format, Sizes { rows, inner, outer }, what, GPUS[gpu])
    }

    #[test]
    fn rows_are_in_memory_whole_where_there_is_room_and_else_in_equal_parts() {
        let phase = |rows, inner, gpu| {
            let plan = plan(BlockFormat::Q8_0, (rows, inner, 4096), What::Plain, gpu).unwrap();
            assert!(plan.shared <= GPUS[gpu].shared, "{plan:?}");
            (plan.room, plan.phase)
        };
        assert_eq!(phase(1, 4096, 0), (8, 4096));
        assert_eq!(phase(8, 18_944, 0), (8, 18_944));
        assert_eq!(phase(13, 11_008, 0), (16, 11_008));
        assert_eq!(phase(32, 4096, 0), (32, 4096));
        assert_eq!(phase(64, 32, 0), (64, 128));
        let (room, part) = phase(64, 11_008, 0);
        assert!(room == 64 && part.is_multiple_of(128) && (1408..=2048).contains(&part), "{part}");
        assert!(phase(8, 11_008, 1).1 < 11_008);
        assert_eq!(phase(64, 4096, 1).0, 64);
        let many = plan(BlockFormat::Q8_0, (33, 4096, 12_288), What::Plain, 1).unwrap();
        assert_eq!(many.room, 32, "so many outputs leave no room for sums of 64 rows");
    }

    #[test]
    fn every_layer_of_a_large_model_has_a_plan_on_every_gpu() {
        for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4_K] {
            for (inner, outer) in [(4096, 12_288), (13_824, 5120), (18_944, 3584), (27_648, 5120), (5120, 152_064)] {
                for rows in [1, 8, 16, 33, MOST_ROWS] {
                    for gpu in 0..GPUS.len() {
                        let plan = plan(format, (rows, inner, outer), What::Added, gpu);
                        assert!(plan.is_some(), "{rows} rows of {inner}, {outer} outputs in {format} on {gpu}");
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_the_kernel_does_not_take_have_no_plan() {
        let has = |sizes, what| plan(BlockFormat::Q8_0, sizes, what, 0).is_some();
        assert!(has((1, 32, 1), What::Plain) && has((64, 4096, 11_008), What::Gated));
        assert!(!has((0, 32, 1), What::Plain) && !has((65, 32, 1), What::Plain) && !has((1, 32, 0), What::Plain));
        assert!(!has((1, 32, 12), What::Gated), "partners in the middle of a tile");
    }
}

//! The launch of products of some dozen rows in 16 bits (`kernels/dozens.cu`), and what of them fits a GPU.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::CudaView;
use candle_core::{CudaDevice, DType, Result, bail};

use super::few::{Sizes, What};
use crate::ops::cuda::{DOZENS, Format, Kernel, Limits, blocks, launch};

/// How many rows there are.
const ROWS: RangeInclusive<usize> = 9..=64;
/// Blocks of a cluster, the first of those that fit: so many slices has what is summed up, and each block as many eights of rows.
const RANKS: [usize; 3] = [4, 8, 2];
/// Warps and threads of a block, numbers of a row of weights and of `x` that come at a time, and numbers between rows of `x`.
const WARPS: usize = 8;
const THREADS: usize = 32 * WARPS;
const CHUNK: usize = 64;
const PIECE: usize = 256;
const PAD: usize = 32;
/// Pieces of `x` that there is room for at least, where they do not stay.
const FEWEST: usize = 4;
/// Bytes that the threads of a warp send of eight rows of a tile, and of the barriers of all warps.
const SUMS: usize = 512;
const BARRIERS: usize = 2 * WARPS * 8;

/// How many clusters of so many blocks a GPU runs at the same time.
pub type Clusters = [(usize, usize); RANKS.len()];

/// As many as each GPU does.
static CLUSTERS: Mutex<BTreeMap<usize, Option<Clusters>>> = Mutex::new(BTreeMap::new());

/// How many clusters a GPU runs; `None` for one that has no such kernels.
pub fn clusters(device: &CudaDevice, limits: Limits) -> Result<Option<Clusters>> {
    let ordinal = device.cuda_stream().context().ordinal();
    let mut known = CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(clusters) = known.get(&ordinal) {
        return Ok(*clusters);
    }
    let mut clusters = RANKS.map(|ranks| (ranks, 0));
    for (ranks, count) in &mut clusters {
        // One block to a multiprocessor, whatever they need of its memory.
        let Some(kernel) = Kernel::clustered(device, &DOZENS, "dozens_f16_plain_8", *ranks)? else {
            known.insert(ordinal, None);
            return Ok(None);
        };
        let config = blocks([*ranks, 1, 1], THREADS, limits.shared / size_of::<f32>())?;
        *count = kernel.with_shared(limits.shared)?.clusters(config)?;
    }
    known.insert(ordinal, Some(clusters));
    Ok(Some(clusters))
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    sizes: Sizes,
    what: What,
    /// Blocks of a cluster, and clusters.
    ranks: usize,
    clusters: usize,
    /// Pieces of `x` that a block has at a time.
    slots: usize,
    /// Rows of the kernel, by eights.
    eights: usize,
    /// Bytes of shared memory.
    shared: usize,
}

impl Plan {
    /// The plan for a GPU that runs so many clusters, if the kernel takes such sizes there.
    pub fn new(sizes: Sizes, what: What, limits: Limits, clusters: Clusters) -> Option<Self> {
        let Sizes { rows, inner, outer } = sizes;
        if !ROWS.contains(&rows) || !inner.is_multiple_of(8) || outer == 0 {
            return None;
        }
        let eights = rows.div_ceil(8).next_power_of_two();
        let (chunks, tile) = (inner.div_ceil(CHUNK), if what == What::Gated { 8 } else { 16 });
        let (mail, slot) = (2 * WARPS * eights * SUMS + BARRIERS, eights * 8 * (PIECE + PAD) * 2);
        let of = |(ranks, clusters): (usize, usize)| {
            let room = limits.shared.checked_sub(mail)? / slot;
            // Every block of a cluster has a part of the sums.
            if clusters == 0 || chunks < ranks || !eights.is_multiple_of(ranks) {
                return None;
            }
            let pieces = (chunks.div_ceil(ranks) * CHUNK).div_ceil(PIECE);
            let once = outer.div_ceil(clusters) <= WARPS * tile;
            // What several tiles are made of stays; else it makes room for what comes next.
            let slots = if pieces <= room { pieces } else { room };
            let fits = pieces <= room || once && room >= FEWEST;
            fits.then_some(Self { sizes, what, ranks, clusters, slots, eights, shared: mail + slots * slot })
        };
        clusters.into_iter().find_map(of)
    }

    /// Launches the product, as [`super::few::Plan::launch`] does.
    pub fn launch<T: Format>(
        &self,
        device: &CudaDevice,
        w: &CudaView<'_, T>,
        x: &CudaView<'_, T>,
        bias: u64,
        out: u64,
    ) -> Result<()> {
        debug_assert!(T::DTYPE != DType::F32);
        let Sizes { rows, inner, outer } = self.sizes;
        let name = format!("dozens_{}_{}_{}", T::name(), self.what.name(), self.eights);
        let Some(kernel) = Kernel::clustered(device, &DOZENS, &name, self.ranks)? else {
            bail!("this GPU has no kernels for clusters of blocks")
        };
        let kernel = kernel.with_shared(self.shared)?;
        let config = blocks([self.ranks * self.clusters, 1, 1], THREADS, self.shared / size_of::<f32>())?;
        let [inner, outer, rows] = [inner, outer, rows].map(|size| size as u32);
        let [ranks, slots] = [self.ranks, self.slots].map(|size| size as u32);
        launch!(kernel, config, w, x, &bias, &out, &inner, &outer, &rows, &ranks, &slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H200, whose groups of multiprocessors hold 32 clusters of four, and one of eight in each half.
    const LIMITS: Limits = Limits { processors: 132, shared: 227 << 10 };
    const CLUSTERS: Clusters = [(4, 32), (8, 16), (2, 66)];

    fn plan(rows: usize, inner: usize, outer: usize, what: What) -> Option<Plan> {
        Plan::new(Sizes { rows, inner, outer }, what, LIMITS, CLUSTERS)
    }

    #[test]
    fn what_several_tiles_are_made_of_stays_in_memory() {
        // LLaVA-1.5-7B, 13B and InternVL3-8B: queries, keys and values, and gates.
        for (inner, outer, what) in [
            (4096, 12_288, What::Plain),
            (4096, 11_008, What::Gated),
            (5120, 15_360, What::Plain),
            (5120, 13_824, What::Gated),
            (3584, 4608, What::Plain),
            (3584, 18_944, What::Gated),
        ] {
            for rows in [9, 16, 17, 32, 33, 48, 64] {
                let plan = plan(rows, inner, outer, what).unwrap();
                let slice = inner.div_ceil(CHUNK).div_ceil(plan.ranks) * CHUNK;
                assert!(plan.slots * PIECE >= slice && plan.shared <= LIMITS.shared, "{plan:?}");
                assert_eq!(plan.eights * 8, rows.next_power_of_two().max(16));
            }
        }
    }

    #[test]
    fn what_one_tile_is_made_of_may_pass_through() {
        for (inner, outer) in [(11_008, 4096), (13_824, 5120), (18_944, 3584)] {
            for rows in [16, 64] {
                if let Some(plan) = plan(rows, inner, outer, What::Added) {
                    let once = outer.div_ceil(plan.clusters) <= WARPS * 16;
                    let stays = plan.slots * PIECE * plan.ranks >= inner;
                    assert!(plan.shared <= LIMITS.shared && (stays || once && plan.slots >= FEWEST), "{plan:?}");
                }
            }
        }
        assert!(plan(64, 11_008, 4096, What::Added).is_some() && plan(64, 18_944, 3584, What::Added).is_some());
    }

    #[test]
    fn sizes_that_the_kernel_does_not_take_have_no_plan() {
        assert!(plan(9, 256, 1, What::Plain).is_some());
        for (rows, inner, outer) in [(8, 256, 1), (65, 256, 1), (9, 252, 1), (9, 256, 0), (9, 64, 1)] {
            assert_eq!(plan(rows, inner, outer, What::Plain), None, "{rows} {inner} {outer}");
        }
        let small = Limits { processors: 58, shared: 99 << 10 };
        let sizes = Sizes { rows: 64, inner: 4096, outer: 12_288 };
        assert_eq!(Plan::new(sizes, What::Plain, small, CLUSTERS), None);
        assert_eq!(Plan::new(sizes, What::Plain, LIMITS, RANKS.map(|ranks| (ranks, 0))), None);
    }
}

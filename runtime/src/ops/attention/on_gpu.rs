//! The launches of attention: single rows in parts of their keys that are joined afterwards, runs of rows by tiles, both on
//! tensor cores where the cache has 16 or 8 bits; single rows there, if all are, store their keys and values on the way.

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Result, Shape, bail};

use super::Attention;
use crate::ops::batch::RUN;
use crate::ops::cuda::{self, ATTENTION, Flash, Format, Kernel, Limits, QUERIES, check_head, launch, tile_memory};
use crate::ops::kv_cache::{KvShape, KvStrides};
use crate::ops::{Batch, KvCache, KvFormat, RopeTable};

/// Keys that a part of a single row's attention has at least, where the row sees so many.
const PART: usize = 64;
/// Most parts of a row.
const MOST_PARTS: usize = 64;
/// Warps that keep any GPU busy: more parts only add to what is joined.
const BUSY: usize = 8192;
/// Heads of so many numbers are multiplied on tensor cores, also of single rows.
const WIDTHS: [usize; 3] = [64, 96, 128];
/// Queries that are multiplied together there, the threads of a block, and most rows times groups of queries.
const COLUMNS: usize = 8;
const THREADS: usize = 128;
/// Keys that a warp has there at a time.
const KEYS: usize = 16;
/// Times of keys and values of a warp that are on their way there.
const AHEAD: usize = 1;
const MOST_GROUPS: usize = 1 << 16;

/// What the kernels for single rows and for runs take alike.
macro_rules! attend {
    ($kernel:expr, $config:expr, $cache:expr, $strides:expr, $step:expr, $which:expr, $qkv:expr, $rope:expr, $out:expr,
     $sizes:expr) => {{
        let KvStrides { block, value, head, token, block_tokens } = $strides;
        let [width, heads, kv_heads, head_dim] = $sizes;
        let (tables, rows) = ($step.tables(), $step.rows());
        launch!(
            $kernel,
            $config,
            $cache,
            &block,
            &value,
            &head,
            &token,
            &block_tokens,
            &tables,
            &rows,
            $which,
            $qkv,
            $rope,
            $out,
            &width,
            &heads,
            &kv_heads,
            &head_dim
        )
    }};
}

/// Whether single rows are multiplied on tensor cores, where they have not 32 bits.
pub fn takes_products(shape: KvShape) -> bool {
    let KvStrides { block, value, head, token, .. } = shape.strides();
    let even = [block, value, head.into(), token.into()].iter().all(|numbers| numbers.is_multiple_of(16));
    even && WIDTHS.contains(&shape.head_dim)
}

/// In how many parts the keys of rows that see up to `longest` are read, if `busy` keep a GPU busy.
fn parts_of_keys(longest: usize, busy: usize) -> usize {
    longest.div_ceil(PART).clamp(1, busy.clamp(1, MOST_PARTS))
}

/// Numbers that so many workers, of as many threads as a block there has, leave each other of heads of `head_dim`: the first and the
/// last part of each may be one of several of their row (`single::Parts` in `kernels/single.cuh`).
pub fn numbers_of_parts(workers: usize, head_dim: usize) -> usize {
    workers * 2 * COLUMNS * (head_dim + 2)
}

/// Groups of query heads that share a kv head and are multiplied together there.
fn groups_of_heads(heads: usize, kv_heads: usize) -> usize {
    kv_heads * (heads / kv_heads).div_ceil(COLUMNS)
}

/// Bytes that a worker has there (`single::Shared` in `kernels/single.cuh`), with `ahead` times of keys and values of a warp, which
/// the cache keeps as `format`.
pub fn worker_bytes(head_dim: usize, format: KvFormat, ahead: usize) -> usize {
    let (warps, float) = (THREADS / 32, size_of::<f32>());
    let (number, scales) = match format {
        KvFormat::Numbers(dtype) => (dtype.size_in_bytes(), 0),
        KvFormat::Bytes(_) => (1, KEYS * float),
    };
    let slot = (2 * (KEYS * head_dim * number + scales)).max(COLUMNS * (head_dim + 4) * float).next_multiple_of(16);
    let queries = COLUMNS * (head_dim + 32) * float / 2;
    queries + warps * (ahead * slot + (2 * COLUMNS + MOST_PARTS) * float) + 16
}

/// Whether attention of all rows over `cache` stores their keys and values itself.
pub fn stores(cache: &KvCache, rope: &RopeTable, batch: &Batch) -> Result<bool> {
    let Device::Cuda(device) = cache.device() else { return Ok(false) };
    Ok(cache.format() != KvFormat::Numbers(DType::F32)
        && takes_products(cache.shape()?)
        && batch.on_gpu(rope, device)?.runs == 0)
}

impl Attention<'_> {
    /// Over a cache whose elements are `T`, to numbers of `Out`.
    pub(super) fn launch<T: CudaDType + DeviceRepr, Out: Format>(
        &self,
        qkv: (&CudaStorage, &Layout),
        cache: (&CudaStorage, &Layout),
        rope: (&CudaStorage, &Layout),
    ) -> Result<(CudaStorage, Shape)> {
        let shape = KvShape::of(cache.1, self.kept)?;
        shape.check(self.batch)?;
        let device = &qkv.0.device;
        let (count, width) = qkv.1.shape().dims2()?;
        let (hd, kv_heads) = (shape.head_dim, shape.kv_heads);
        let heads = width / hd - 2 * kv_heads;
        let (qkv, rope) = (cuda::slice::<f32>(qkv.0, qkv.1)?, cuda::slice::<f32>(rope.0, rope.1)?);
        let cache = cuda::slice::<T>(cache.0, cache.1)?;
        let (step, strides) = (self.batch.on_gpu(self.rope, device)?, shape.strides());
        let sizes = [width, heads, kv_heads, hd].map(|size| size as u32);
        let (format, rounded) = (self.kept.name(), Out::name());
        let exact = self.kept == KvFormat::Numbers(DType::F32);
        let mut out = cuda::room::<Out>(device, count * heads * hd)?;
        if step.runs > 0 {
            let (name, config) = if exact {
                let halves = RUN.div_ceil(4 * QUERIES);
                let config = cuda::blocks([step.runs, heads, halves], 128, tile_memory(4 * QUERIES, hd)?)?;
                ("prefill_f32".to_owned(), config)
            } else {
                let Flash { head, config } = Flash::new([step.runs, heads, 1], hd)?;
                (format!("prefill_{format}_{rounded}_{head}"), config)
            };
            let (kernel, which) = (Kernel::of(device, &ATTENTION, &name)?, step.runs());
            attend!(kernel, config, &cache, strides, step, &which, &qkv, &rope, &mut out, sizes)?;
        }
        if step.singles > 0 {
            if !exact && takes_products(shape) {
                self.products(device, [&qkv, &rope], &cache, &mut out, (shape, sizes))?;
            } else {
                let group = heads / kv_heads;
                let queries = group.next_power_of_two().min(QUERIES);
                let groups = kv_heads * group.div_ceil(queries);
                let parts = parts_of_keys(step.longest, BUSY.div_ceil(step.singles * groups));
                let mut mixed = cuda::room::<f32>(device, step.singles * heads * parts * (hd + 2))?;
                let kernel = Kernel::early(device, &ATTENTION, &format!("decode_{format}_{queries}"))?;
                check_head(hd)?;
                let config = cuda::blocks([parts, groups, step.singles], 32, 0)?;
                let which = step.singles();
                attend!(kernel, config, &cache, strides, step, &which, &qkv, &rope, &mut mixed, sizes)?;
                self.join(&mixed, [parts, heads, step.singles, hd], &mut out, device)?;
            }
        }
        Ok((cuda::storage(out, device), (count, heads * hd).into()))
    }

    /// Single rows on tensor cores.
    fn products<T: CudaDType + DeviceRepr, Out: Format>(
        &self,
        device: &CudaDevice,
        [qkv, rope]: [&CudaView<'_, f32>; 2],
        cache: &CudaView<'_, T>,
        out: &mut CudaSlice<Out>,
        (shape, [width, heads, kv_heads, _]): (KvShape, [u32; 4]),
    ) -> Result<()> {
        let step = self.batch.on_gpu(self.rope, device)?;
        let groups = groups_of_heads(heads as usize, kv_heads as usize);
        if step.singles * groups > MOST_GROUPS {
            bail!("{} sequences with {groups} groups of heads are more than one step takes", step.singles)
        }
        let name = format!("decode_products_{}_{}_{}", self.kept.name(), Out::name(), shape.head_dim);
        let bytes = worker_bytes(shape.head_dim, self.kept, AHEAD);
        let kernel = Kernel::early(device, &ATTENTION, &name)?.with_shared(bytes)?;
        // All that fit a GPU at the same time, if there is as much to do.
        let tiles = step.singles * groups * step.longest.div_ceil(PART);
        let workers = kernel.at_the_same_time(Limits::of(device)?, THREADS, bytes)?.min(tiles).max(1);
        let mut parts = cuda::room::<f32>(device, numbers_of_parts(workers, shape.head_dim))?;
        let config = cuda::blocks([workers, 1, 1], THREADS, bytes / size_of::<f32>())?;
        let KvStrides { block, value, head, token, block_tokens } = shape.strides();
        let (tables, rows, which) = (step.tables(), step.rows(), step.singles());
        let (count, stores) = (step.singles as u32, u32::from(self.stores));
        launch!(
            kernel,
            config,
            cache,
            &block,
            &value,
            &head,
            &token,
            &block_tokens,
            &tables,
            &rows,
            &which,
            &count,
            qkv,
            rope,
            &mut parts,
            out,
            &width,
            &heads,
            &kv_heads,
            &stores
        )
    }

    fn join<Out: Format>(
        &self,
        mixed: &CudaSlice<f32>,
        [parts, heads, singles, head_dim]: [usize; 4],
        out: &mut CudaSlice<Out>,
        device: &CudaDevice,
    ) -> Result<()> {
        let step = self.batch.on_gpu(self.rope, device)?;
        let (which, splits, columns) = (step.singles(), parts as u32, head_dim as u32);
        let config = cuda::blocks([heads, singles, 1], cuda::threads(head_dim), 0)?;
        let kernel = Kernel::early(device, &ATTENTION, &format!("join_{}", Out::name()))?;
        launch!(kernel, config, mixed, &which, out, &splits, &columns)
    }
}

//! The launches of attention: single rows in parts of their keys that are joined afterwards, runs of rows by tiles, on
//! tensor cores where the cache has 16 bits.

use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

use super::Attention;
use crate::ops::batch::RUN;
use crate::ops::cuda::{self, ATTENTION, Flash, Format, Kernel, QUERIES, check_head, launch, tile_memory};
use crate::ops::kv_cache::{KvShape, KvStrides};

/// Keys that a part of a single row's attention has at least, where the row sees so many.
const PART: usize = 64;
/// Most parts of a row.
const MOST_PARTS: usize = 64;
/// Warps that keep any GPU busy: more parts only add to what is joined.
const BUSY: usize = 8192;

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

impl Attention<'_> {
    /// Over a cache of `T`, to numbers of `Out`.
    pub(super) fn launch<T: Format, Out: Format>(
        &self,
        qkv: (&CudaStorage, &Layout),
        cache: (&CudaStorage, &Layout),
        rope: (&CudaStorage, &Layout),
    ) -> Result<(CudaStorage, Shape)> {
        let shape = KvShape::of(cache.1)?;
        shape.check(self.batch)?;
        let device = &qkv.0.device;
        let (count, width) = qkv.1.shape().dims2()?;
        let (hd, kv_heads) = (shape.head_dim, shape.kv_heads);
        let heads = width / hd - 2 * kv_heads;
        let (qkv, rope) = (cuda::slice::<f32>(qkv.0, qkv.1)?, cuda::slice::<f32>(rope.0, rope.1)?);
        let cache = cuda::slice::<T>(cache.0, cache.1)?;
        let (step, strides) = (self.batch.on_gpu(self.rope, device)?, shape.strides());
        let sizes = [width, heads, kv_heads, hd].map(|size| size as u32);
        let (format, rounded) = (T::name(), Out::name());
        let mut out = cuda::room::<Out>(device, count * heads * hd)?;
        if step.runs > 0 {
            let (name, config) = if T::DTYPE == DType::F32 {
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
            let group = heads / kv_heads;
            let queries = group.next_power_of_two().min(QUERIES);
            let groups = kv_heads * group.div_ceil(queries);
            let most = BUSY.div_ceil(step.singles * groups).min(MOST_PARTS);
            let parts = step.longest.div_ceil(PART).clamp(1, most);
            let mut mixed = cuda::room::<f32>(device, step.singles * heads * parts * (hd + 2))?;
            let kernel = Kernel::of(device, &ATTENTION, &format!("decode_{format}_{queries}"))?;
            check_head(hd)?;
            let config = cuda::blocks([parts, groups, step.singles], 32, 0)?;
            let which = step.singles();
            attend!(kernel, config, &cache, strides, step, &which, &qkv, &rope, &mut mixed, sizes)?;
            self.join(&mixed, [parts, heads, step.singles, hd], &mut out, device)?;
        }
        Ok((cuda::storage(out, device), (count, heads * hd).into()))
    }

    fn join<Out: Format>(
        &self,
        mixed: &CudaSlice<f32>,
        [parts, heads, singles, head_dim]: [usize; 4],
        out: &mut CudaSlice<Out>,
        device: &candle_core::CudaDevice,
    ) -> Result<()> {
        let step = self.batch.on_gpu(self.rope, device)?;
        let (which, splits, columns) = (step.singles(), parts as u32, head_dim as u32);
        let config = cuda::blocks([heads, singles, 1], cuda::threads(head_dim), 0)?;
        let kernel = Kernel::of(device, &ATTENTION, &format!("join_{}", Out::name()))?;
        launch!(kernel, config, mixed, &which, out, &splits, &columns)
    }
}

//! The op that stores the keys, rotated, and the values of a step's rows.

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Result};
#[cfg(feature = "cuda")]
use candle_core::{bail, cuda::CudaDType};
use half::{bf16, f16};

#[cfg(feature = "cuda")]
use super::super::cuda::{self, KV_CACHE, Kernel, launch};
use super::super::rope::rotate;
use super::super::{Batch, RopeTable, cpu};
#[cfg(feature = "cuda")]
use super::KvStrides;
use super::{BLOCK_TOKENS, Bytes, Keep, KvFormat, KvShape, Place};

/// Of the rows of a batch, into the cache of a layer.
pub struct Store<'a> {
    pub batch: &'a Batch,
    pub rope: &'a RopeTable,
    pub format: KvFormat,
}

impl InplaceOp3 for Store<'_> {
    fn name(&self) -> &'static str {
        "store-kv"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        rope: &CpuStorage,
        rope_layout: &Layout,
    ) -> Result<()> {
        let shape = KvShape::of(cache_layout, self.format)?;
        let (qkv, rope) = ((qkv, qkv_layout), (rope, rope_layout));
        match self.format {
            KvFormat::Bytes(format) => {
                let bytes = cpu::stored_mut::<u8>(cache, cache_layout)?;
                self.write(Bytes { bytes, format }, shape, qkv, rope)
            }
            KvFormat::Numbers(DType::F16) => self.write(cpu::stored_mut::<f16>(cache, cache_layout)?, shape, qkv, rope),
            KvFormat::Numbers(DType::BF16) => {
                self.write(cpu::stored_mut::<bf16>(cache, cache_layout)?, shape, qkv, rope)
            }
            KvFormat::Numbers(_) => self.write(cpu::stored_mut::<f32>(cache, cache_layout)?, shape, qkv, rope),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        cache: &mut candle_core::CudaStorage,
        cache_layout: &Layout,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        rope: &candle_core::CudaStorage,
        rope_layout: &Layout,
    ) -> Result<()> {
        let (qkv, rope) = ((qkv, qkv_layout), (rope, rope_layout));
        match self.format {
            KvFormat::Bytes(_) => self.write_on_gpu::<u8>((cache, cache_layout), qkv, rope),
            KvFormat::Numbers(DType::F16) => self.write_on_gpu::<f16>((cache, cache_layout), qkv, rope),
            KvFormat::Numbers(DType::BF16) => self.write_on_gpu::<bf16>((cache, cache_layout), qkv, rope),
            KvFormat::Numbers(_) => self.write_on_gpu::<f32>((cache, cache_layout), qkv, rope),
        }
    }
}

impl Store<'_> {
    fn write(
        &self,
        mut cache: impl Keep,
        shape: KvShape,
        qkv: (&CpuStorage, &Layout),
        rope: (&CpuStorage, &Layout),
    ) -> Result<()> {
        shape.check(self.batch)?;
        let (_, width) = qkv.1.shape().dims2()?;
        let (qkv, rope) = (cpu::slice(qkv.0, qkv.1)?, cpu::slice(rope.0, rope.1)?);
        let (hd, kv_width) = (shape.head_dim, shape.kv_heads * shape.head_dim);
        let mut turned = vec![0f32; hd];
        for (numbers, row) in qkv.chunks_exact(width).zip(self.batch.rows()) {
            let (keys, values) = numbers[width - 2 * kv_width..].split_at(kv_width);
            let angles = &rope[self.rope.row(row.position, row.long) * hd..][..hd];
            let block = self.batch.blocks(row.sequence)[row.position / BLOCK_TOKENS];
            let token = row.position % BLOCK_TOKENS;
            for (head, (key, value)) in keys.chunks_exact(hd).zip(values.chunks_exact(hd)).enumerate() {
                rotate(key, angles, 1.0, &mut turned);
                cache.put(&shape, Place { of_values: false, block, token, head }, &turned);
                cache.put(&shape, Place { of_values: true, block, token, head }, value);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Store<'_> {
    fn write_on_gpu<T: CudaDType>(
        &self,
        (cache, cache_layout): (&mut candle_core::CudaStorage, &Layout),
        qkv: (&candle_core::CudaStorage, &Layout),
        rope: (&candle_core::CudaStorage, &Layout),
    ) -> Result<()> {
        let shape = KvShape::of(cache_layout, self.format)?;
        shape.check(self.batch)?;
        let (count, width) = qkv.1.shape().dims2()?;
        let (qkv, rope) = (cuda::slice::<f32>(qkv.0, qkv.1)?, cuda::slice::<f32>(rope.0, rope.1)?);
        let device = cache.device.clone();
        let Some((start, end)) = cache_layout.contiguous_offsets() else {
            bail!("expected a whole KV cache, got {cache_layout:?}")
        };
        let mut cache = cache.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        let step = self.batch.on_gpu(self.rope, &device)?;
        let (tables, rows) = (step.tables(), step.rows());
        let KvStrides { block, value, head, token, block_tokens } = shape.strides();
        let [width, kv_heads, head_dim] = [width, shape.kv_heads, shape.head_dim].map(|size| size as u32);
        let threads = match self.format {
            KvFormat::Numbers(_) => cuda::threads(shape.head_dim),
            // A warp for the key and one for the value.
            KvFormat::Bytes(_) => 64,
        };
        let config = cuda::blocks([count, shape.kv_heads, 1], threads, 0)?;
        let kernel = Kernel::early(&device, &KV_CACHE, &format!("store_{}", self.format.name()))?;
        launch!(
            kernel,
            config,
            &mut cache,
            &block,
            &value,
            &head,
            &token,
            &block_tokens,
            &tables,
            &rows,
            &qkv,
            &rope,
            &width,
            &kv_heads,
            &head_dim
        )
    }
}

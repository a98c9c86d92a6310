//! Keys and values of every sequence, allocated once, in 32 or 16 bits, and the op that writes them.

use candle_core::{CpuStorage, DType, Device, InplaceOp3, Layout, Result, Tensor};

use half::{bf16, f16};

#[cfg(feature = "cuda")]
use super::cuda::{self, KV_CACHE, Kernel, launch};
use super::element::Element;
use super::rope::rotate;
use super::{Batch, RopeTable, cpu};

/// One tensor a layer: `[slots, key | value, kv heads, tokens, head dim]`.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Tensor>,
}

impl KvCache {
    /// Room for `slots` sequences of `tokens` tokens, in f32, f16 or bf16.
    pub fn new(
        layers: usize,
        slots: usize,
        kv_heads: usize,
        tokens: usize,
        head_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (slots, 2, kv_heads, tokens, head_dim);
        let layers = (0..layers).map(|_| Tensor::zeros(shape, dtype, device)).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// The tensor of one layer.
    pub fn layer(&self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }

    /// Stores keys, rotated, and values of the rows of `qkv` (`[rows, q heads + 2 · kv heads, head dim]` flattened).
    pub fn store(&self, layer: usize, qkv: &Tensor, rope: &RopeTable, batch: &Batch) -> Result<()> {
        rope.check(batch)?;
        self.layers[layer].inplace_op3(qkv, rope.tensor(), &Store { batch, rope })
    }
}

/// Place of one slot's heads inside a layer's tensor.
#[derive(Clone, Copy)]
pub struct KvShape {
    pub slots: usize,
    pub kv_heads: usize,
    pub tokens: usize,
    pub head_dim: usize,
}

impl KvShape {
    pub fn of(layout: &Layout) -> Result<Self> {
        let (slots, _, kv_heads, tokens, head_dim) = layout.shape().dims5()?;
        Ok(Self { slots, kv_heads, tokens, head_dim })
    }

    /// Offset of the keys of `head`; the values are [`Self::value_offset`] further.
    pub fn keys(&self, slot: usize, head: usize) -> usize {
        (slot * 2 * self.kv_heads + head) * self.tokens * self.head_dim
    }

    pub fn value_offset(&self) -> usize {
        self.kv_heads * self.tokens * self.head_dim
    }
}

/// Strides in numbers, as the kernels read the cache: blocks of tokens, of which a sequence has a table.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy)]
pub struct KvStrides {
    pub block: u64,
    pub value: u64,
    pub head: u32,
    pub token: u32,
    pub block_tokens: u32,
}

#[cfg(feature = "cuda")]
impl KvShape {
    /// A slot is one block of all tokens of a sequence.
    pub fn strides(&self) -> KvStrides {
        KvStrides {
            block: self.keys(1, 0) as u64,
            value: self.value_offset() as u64,
            head: self.keys(0, 1) as u32,
            token: self.head_dim as u32,
            block_tokens: self.tokens as u32,
        }
    }

    /// Refuses rows that the cache has no room for.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        match batch.rows().iter().find(|(slot, position)| *slot >= self.slots || *position >= self.tokens) {
            Some((slot, position)) => {
                candle_core::bail!("slot {slot} or position {position} is outside of the KV cache")
            }
            None => Ok(()),
        }
    }
}

struct Store<'a> {
    batch: &'a Batch,
    rope: &'a RopeTable,
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
        match cache {
            CpuStorage::F16(_) => self.write::<f16>(cache, cache_layout, (qkv, qkv_layout), (rope, rope_layout)),
            CpuStorage::BF16(_) => self.write::<bf16>(cache, cache_layout, (qkv, qkv_layout), (rope, rope_layout)),
            _ => self.write::<f32>(cache, cache_layout, (qkv, qkv_layout), (rope, rope_layout)),
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
        use candle_core::backend::BackendStorage;
        let (qkv, rope) = ((qkv, qkv_layout), (rope, rope_layout));
        match cache.dtype() {
            DType::F16 => self.write_on_gpu::<f16>((cache, cache_layout), qkv, rope, "store_f16"),
            DType::BF16 => self.write_on_gpu::<bf16>((cache, cache_layout), qkv, rope, "store_bf16"),
            _ => self.write_on_gpu::<f32>((cache, cache_layout), qkv, rope, "store_f32"),
        }
    }
}

impl Store<'_> {
    fn write<E: Element>(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        qkv: (&CpuStorage, &Layout),
        rope: (&CpuStorage, &Layout),
    ) -> Result<()> {
        let shape = KvShape::of(cache_layout)?;
        let (_, width) = qkv.1.shape().dims2()?;
        let (qkv, rope) = (cpu::slice(qkv.0, qkv.1)?, cpu::slice(rope.0, rope.1)?);
        let cache = cpu::stored_mut::<E>(cache, cache_layout)?;
        let hd = shape.head_dim;
        let kv_width = shape.kv_heads * hd;
        let mut key = vec![0f32; hd];
        for (i, (row, &(slot, position))) in qkv.chunks_exact(width).zip(self.batch.rows()).enumerate() {
            if slot >= shape.slots || position >= shape.tokens {
                candle_core::bail!("slot {slot} or position {position} is outside of the KV cache")
            }
            let (keys, values) = row[width - 2 * kv_width..].split_at(kv_width);
            let angles = &rope[self.rope.row(position, self.batch.long(i)) * hd..][..hd];
            for head in 0..shape.kv_heads {
                let at = shape.keys(slot, head) + position * hd;
                rotate(&keys[head * hd..(head + 1) * hd], angles, 1.0, &mut key);
                narrow(&key, &mut cache[at..at + hd]);
                let at = at + shape.value_offset();
                narrow(&values[head * hd..(head + 1) * hd], &mut cache[at..at + hd]);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Store<'_> {
    fn write_on_gpu<T: candle_core::cuda::CudaDType>(
        &self,
        (cache, cache_layout): (&mut candle_core::CudaStorage, &Layout),
        qkv: (&candle_core::CudaStorage, &Layout),
        rope: (&candle_core::CudaStorage, &Layout),
        kernel: &str,
    ) -> Result<()> {
        let shape = KvShape::of(cache_layout)?;
        shape.check(self.batch)?;
        let (count, width) = qkv.1.shape().dims2()?;
        let (qkv, rope) = (cuda::slice::<f32>(qkv.0, qkv.1)?, cuda::slice::<f32>(rope.0, rope.1)?);
        let device = cache.device.clone();
        let Some((start, end)) = cache_layout.contiguous_offsets() else {
            candle_core::bail!("expected a whole KV cache, got {cache_layout:?}")
        };
        let mut cache = cache.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        let step = self.batch.on_gpu(self.rope, &device)?;
        let (tables, rows) = (step.tables(), step.rows());
        let KvStrides { block, value, head, token, block_tokens } = shape.strides();
        let [width, kv_heads, head_dim] = [width, shape.kv_heads, shape.head_dim].map(|size| size as u32);
        let config = cuda::blocks([count, shape.kv_heads, 1], cuda::threads(shape.head_dim), 0)?;
        launch!(
            Kernel::of(&device, &KV_CACHE, kernel)?,
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

fn narrow<E: Element>(values: &[f32], out: &mut [E]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = E::narrow(*value);
    }
}

//! Keys and values of every sequence, allocated once, in 32 or 16 bits, and the op that writes them.

use candle_core::{CpuStorage, DType, Device, InplaceOp3, Layout, Result, Tensor};

use half::{bf16, f16};

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

fn narrow<E: Element>(values: &[f32], out: &mut [E]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = E::narrow(*value);
    }
}

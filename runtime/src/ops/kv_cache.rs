//! Keys and values of every sequence in blocks of a fixed number of tokens (Kwon et al. 2023), allocated once, in 32 or
//! 16 bits, and the op that writes them. Who owns which block is the engine's to know.

use candle_core::{CpuStorage, DType, Device, InplaceOp3, Layout, Result, Tensor, bail};

use half::{bf16, f16};

#[cfg(feature = "cuda")]
use super::cuda::{self, KV_CACHE, Kernel, launch};
use super::element::Element;
use super::rope::rotate;
use super::{Batch, RopeTable, cpu};

/// Tokens of one block.
pub const BLOCK_TOKENS: usize = 32;
// The kernels shift where others would divide.
const _: () = assert!(BLOCK_TOKENS.is_power_of_two());
/// The block that no sequence owns; rows that only pad a step write to it.
pub const DUMMY_BLOCK: u32 = 0;

/// Blocks that `tokens` tokens of one sequence take.
pub const fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

/// Blocks of a cache for `sequences` sequences of `tokens` tokens each, the dummy block among them.
pub const fn room_for(sequences: usize, tokens: usize) -> usize {
    sequences.saturating_mul(blocks_for(tokens)).saturating_add(1)
}

/// The blocks of the `n`-th of sequences with room for `tokens` tokens each, where all have a fixed place.
pub fn nth_table(n: usize, tokens: usize) -> Vec<u32> {
    let first = room_for(n, tokens) as u32;
    (first..first + blocks_for(tokens) as u32).collect()
}

/// One tensor a layer: `[key | value, blocks, tokens of a block, kv heads, head dim]`.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Tensor>,
}

impl KvCache {
    /// `blocks` blocks, the dummy among them, in f32, f16 or bf16.
    pub fn new(
        layers: usize,
        blocks: usize,
        kv_heads: usize,
        head_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (2, blocks, BLOCK_TOKENS, kv_heads, head_dim);
        let layers = (0..layers).map(|_| Tensor::zeros(shape, dtype, device)).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        self.layers.first().map_or(&Device::Cpu, Tensor::device)
    }

    /// Refuses rows that are not in the cache, as every layer of a step does.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        match self.layers.first() {
            Some(layer) => KvShape::of(layer.layout())?.check(batch),
            None => Ok(()),
        }
    }

    /// The tensor of one layer.
    pub fn layer(&self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }

    /// Bytes of all layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| (layer.elem_count() * layer.dtype().size_in_bytes()) as u64).sum()
    }

    /// Stores keys, rotated, and values of the rows of `qkv` (`[rows, q heads + 2 · kv heads, head dim]` flattened).
    ///
    /// # Errors
    /// Positions that the rotary table or the sequence's blocks do not have, blocks that the cache does not have.
    pub fn store(&self, layer: usize, qkv: &Tensor, rope: &RopeTable, batch: &Batch) -> Result<()> {
        rope.check(batch)?;
        self.layers[layer].inplace_op3(qkv, rope.tensor(), &Store { batch, rope })
    }
}

/// Where a block's tokens and heads are inside a layer's tensor.
#[derive(Clone, Copy)]
pub struct KvShape {
    pub blocks: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl KvShape {
    pub fn of(layout: &Layout) -> Result<Self> {
        let (_, blocks, tokens, kv_heads, head_dim) = layout.shape().dims5()?;
        if tokens != BLOCK_TOKENS {
            bail!("the KV cache has blocks of {tokens} tokens, and {BLOCK_TOKENS} are expected")
        }
        Ok(Self { blocks, kv_heads, head_dim })
    }

    /// Numbers from the keys of one token to those of the next in its block.
    pub fn stride(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Offset of the keys of a block's first token; the values are [`Self::value_offset`] further.
    pub fn block(&self, block: u32) -> usize {
        block as usize * BLOCK_TOKENS * self.stride()
    }

    /// Offset of the keys of the token at `position` of a sequence.
    pub fn token(&self, blocks: &[u32], position: usize) -> usize {
        self.block(blocks[position / BLOCK_TOKENS]) + position % BLOCK_TOKENS * self.stride()
    }

    pub fn value_offset(&self) -> usize {
        self.blocks * BLOCK_TOKENS * self.stride()
    }

    /// Refuses rows beyond their block tables, and tables with blocks that do not exist.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        for sequence in 0..batch.sequences() {
            if let Some(block) = batch.blocks(sequence).iter().find(|block| **block as usize >= self.blocks) {
                bail!("block {block} is outside of the KV cache of {} blocks", self.blocks)
            }
        }
        for row in batch.rows() {
            let blocks = batch.blocks(row.sequence).len();
            if row.position >= blocks * BLOCK_TOKENS {
                bail!("position {} is beyond the {blocks} blocks of its sequence", row.position)
            }
        }
        Ok(())
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
    /// As the kernels read the cache.
    pub fn strides(&self) -> KvStrides {
        KvStrides {
            block: self.block(1) as u64,
            value: self.value_offset() as u64,
            head: self.head_dim as u32,
            token: self.stride() as u32,
            block_tokens: BLOCK_TOKENS as u32,
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
        shape.check(self.batch)?;
        let (_, width) = qkv.1.shape().dims2()?;
        let (qkv, rope) = (cpu::slice(qkv.0, qkv.1)?, cpu::slice(rope.0, rope.1)?);
        let cache = cpu::stored_mut::<E>(cache, cache_layout)?;
        let (hd, kv_width) = (shape.head_dim, shape.stride());
        let mut key = vec![0f32; hd];
        for (numbers, row) in qkv.chunks_exact(width).zip(self.batch.rows()) {
            let (keys, values) = numbers[width - 2 * kv_width..].split_at(kv_width);
            let angles = &rope[self.rope.row(row.position, row.long) * hd..][..hd];
            let at = shape.token(self.batch.blocks(row.sequence), row.position);
            for (key_in, out) in keys.chunks_exact(hd).zip(cache[at..at + kv_width].chunks_exact_mut(hd)) {
                rotate(key_in, angles, 1.0, &mut key);
                narrow(&key, out);
            }
            let at = at + shape.value_offset();
            narrow(values, &mut cache[at..at + kv_width]);
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
            Kernel::early(&device, &KV_CACHE, kernel)?,
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

#[cfg(test)]
mod tests {
    use super::super::Segment;
    use super::*;

    fn stored(cache: &KvCache, batch: &Batch) -> Result<()> {
        let rows = batch.rows().len();
        let rope = RopeTable::new(64, 4, 100.0, &Device::Cpu)?;
        // One query head and one head of keys and values, all of ones.
        cache.store(0, &Tensor::ones((rows, 12), DType::F32, &Device::Cpu)?, &rope, batch)
    }

    fn cache() -> KvCache {
        KvCache::new(1, 4, 1, 4, DType::F32, &Device::Cpu).unwrap()
    }

    /// Places of the cache, block by block, that have values.
    fn filled(cache: &KvCache) -> Vec<(usize, usize)> {
        let values: Vec<f32> = cache.layer(0).get(1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let tokens = values.chunks_exact(4).enumerate().filter(|(_, token)| token.iter().any(|v| *v != 0.0));
        tokens.map(|(n, _)| (n / BLOCK_TOKENS, n % BLOCK_TOKENS)).collect()
    }

    #[test]
    fn rows_go_where_the_block_table_says_and_padding_to_the_dummy() {
        let cache = cache();
        let segment = Segment { blocks: &[3, 1], start: 30, rows: 4, long: false };
        let batch = Batch::padded(&[segment], 6);
        assert_eq!((batch.rows().len(), batch.last_rows()), (6, &[3u32][..]));
        stored(&cache, &batch).unwrap();
        assert_eq!(filled(&cache), [(0, 0), (1, 0), (1, 1), (3, 30), (3, 31)]);
    }

    #[test]
    fn places_outside_of_the_cache_are_refused() {
        let refused = |blocks: &[u32], start| {
            stored(&cache(), &Batch::new(&[Segment { blocks, start, rows: 1, long: false }])).unwrap_err().to_string()
        };
        assert!(refused(&[1, 4], 0).contains("block 4"));
        assert!(refused(&[1], 32).contains("position 32"));
        assert!(refused(&[], 0).contains("position 0"));
    }

    #[test]
    fn fixed_places_share_no_block() {
        let tables: Vec<u32> = (0..3).flat_map(|n| nth_table(n, 70)).collect();
        assert_eq!(tables, (1..10).collect::<Vec<u32>>());
        assert_eq!(room_for(3, 70), 10);
    }
}

//! Keys and values of every sequence in blocks of a fixed number of tokens (Kwon et al. 2023), allocated once, in 32, 16
//! or 8 bits, and the op that writes them. Who owns which block is the engine's to know.

mod eight_bits;
mod kept;
mod shape;
mod store;

use candle_core::{DType, Device, Result, Tensor, bail};
use vlm_catalog::kv_cache::KV_SCALE_BYTES;

pub use eight_bits::EightBits;
pub use kept::{Bytes, Keep, Kept};
#[cfg(feature = "cuda")]
pub use shape::KvStrides;
pub use shape::{KvShape, Place};

use super::{Batch, RopeTable};
use store::Store;

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

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// As they are, in f32, f16 or bf16.
    Numbers(DType),
    /// In 8 bits, those of one head of one token times a scale.
    Bytes(EightBits),
}

impl KvFormat {
    /// The name that kernels have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numbers(dtype) => dtype.as_str(),
            Self::Bytes(format) => format.name(),
        }
    }
}

impl From<DType> for KvFormat {
    fn from(dtype: DType) -> Self {
        Self::Numbers(dtype)
    }
}

/// One tensor a layer: `[key | value, blocks, kv heads, tokens of a block, head dim]`. In 8 bits a token has four elements
/// more: a head of a block begins with the numbers of all its tokens, their scales, in f32, lie together behind those.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Tensor>,
    format: KvFormat,
}

impl KvCache {
    /// `blocks` blocks, the dummy among them.
    pub fn new(
        layers: usize,
        blocks: usize,
        kv_heads: usize,
        head_dim: usize,
        format: impl Into<KvFormat>,
        device: &Device,
    ) -> Result<Self> {
        let format = format.into();
        let (dtype, width) = match format {
            KvFormat::Numbers(dtype) => (dtype, head_dim),
            KvFormat::Bytes(_) => (DType::U8, head_dim + KV_SCALE_BYTES),
        };
        let shape = (2, blocks, kv_heads, BLOCK_TOKENS, width);
        let layers = (0..layers).map(|_| Tensor::zeros(shape, dtype, device)).collect::<Result<_>>()?;
        Ok(Self { layers, format })
    }

    /// How it keeps them.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        self.layers.first().map_or(&Device::Cpu, Tensor::device)
    }

    /// Where in a layer's tensor everything is.
    pub fn shape(&self) -> Result<KvShape> {
        match self.layers.first() {
            Some(layer) => KvShape::of(layer.layout(), self.format),
            None => bail!("a KV cache has layers"),
        }
    }

    /// Refuses rows that are not in the cache, as every layer of a step does.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        if self.layers.is_empty() { Ok(()) } else { self.shape()?.check(batch) }
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
        self.layers[layer].inplace_op3(qkv, rope.tensor(), &Store { batch, rope, format: self.format })
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

    #[test]
    fn numbers_and_scales_of_8_bits_are_where_the_shape_says_and_nowhere_else() {
        for format in [EightBits::Int8, EightBits::Fp8] {
            let cache = KvCache::new(1, 4, 1, 4, KvFormat::Bytes(format), &Device::Cpu).unwrap();
            assert_eq!(cache.bytes(), 2 * 4 * 32 * (4 + 4));
            let segment = Segment { blocks: &[3, 1], start: 30, rows: 4, long: false };
            stored(&cache, &Batch::new(&[segment])).unwrap();
            let mut bytes: Vec<u8> = cache.layer(0).flatten_all().unwrap().to_vec1().unwrap();
            for (block, token) in [(3, 30), (3, 31), (1, 0), (1, 1)] {
                let place = Place { of_values: true, block, token, head: 0 };
                let (numbers, scale) = (cache.shape().unwrap().numbers(place), cache.shape().unwrap().scale(place));
                let mut wide = [0f32; 4];
                let scale_there = f32::from_le_bytes(*bytes[scale..].first_chunk().unwrap());
                format.widen(&bytes[numbers..][..4], scale_there, &mut wide);
                assert!(wide.iter().all(|number| (number - 1.0).abs() < 1e-6), "{format:?}: {wide:?}");
                bytes[numbers..][..4].fill(0);
                bytes[scale..][..4].fill(0);
            }
            let values = cache.shape().unwrap().value_offset();
            assert!(bytes[values..].iter().all(|byte| *byte == 0), "{format:?}");
        }
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

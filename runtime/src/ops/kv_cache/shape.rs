//! Where the numbers of a token are in the tensor of a layer. Knows no formats but how many bytes a scale takes.

use candle_core::{Layout, Result, bail};
use vlm_catalog::kv_cache::KV_SCALE_BYTES;

use super::super::Batch;
use super::{BLOCK_TOKENS, KvFormat};

/// Where a block's tokens and heads are inside a layer's tensor: keys and then values of all blocks; in a block head after head, of
/// each the numbers of all its tokens, then, where they share scales, those. Attention reads head by head: what it reads lies
/// together.
#[derive(Clone, Copy)]
pub struct KvShape {
    pub blocks: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Elements that the scale of a head takes.
    pub scale: usize,
}

/// One head of a token, or of the first of a block's.
#[derive(Clone, Copy)]
pub struct Place {
    /// Of values, not of keys.
    pub of_values: bool,
    pub block: u32,
    /// In its block.
    pub token: usize,
    pub head: usize,
}

impl KvShape {
    /// Of a layer that holds keys and values in `format`.
    pub fn of(layout: &Layout, format: KvFormat) -> Result<Self> {
        let (_, blocks, kv_heads, tokens, width) = layout.shape().dims5()?;
        if tokens != BLOCK_TOKENS {
            bail!("the KV cache has blocks of {tokens} tokens, and {BLOCK_TOKENS} are expected")
        }
        let scale = match format {
            KvFormat::Numbers(_) => 0,
            KvFormat::Bytes(_) => KV_SCALE_BYTES,
        };
        Ok(Self { blocks, kv_heads, head_dim: width - scale, scale })
    }

    /// Elements from the keys of one head to those of the next in a block.
    pub fn head(&self) -> usize {
        BLOCK_TOKENS * (self.head_dim + self.scale)
    }

    /// Elements from the keys of one block to those of the next.
    pub fn block(&self) -> usize {
        self.kv_heads * self.head()
    }

    /// Elements from keys to values.
    pub fn value_offset(&self) -> usize {
        self.blocks * self.block()
    }

    fn of_head(&self, place: Place) -> usize {
        let part = if place.of_values { self.value_offset() } else { 0 };
        part + place.block as usize * self.block() + place.head * self.head()
    }

    /// Offset of the numbers at a place.
    pub fn numbers(&self, place: Place) -> usize {
        self.of_head(place) + place.token * self.head_dim
    }

    /// Offset of their scale; that of the next token's is behind it.
    pub fn scale(&self, place: Place) -> usize {
        self.of_head(place) + BLOCK_TOKENS * self.head_dim + place.token * self.scale
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

/// Strides in elements, as the kernels read the cache: blocks of tokens, of which a sequence has a table.
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
            block: self.block() as u64,
            value: self.value_offset() as u64,
            head: self.head() as u32,
            token: self.head_dim as u32,
            block_tokens: BLOCK_TOKENS as u32,
        }
    }
}

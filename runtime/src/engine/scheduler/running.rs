//! One running sequence: its blocks, how much of it is cached, which of its pictures it uses.

use super::super::blocks::{BlockId, BlockPool};
use super::super::encoder_cache::EncoderCache;
use super::super::prefix::Picture;
use super::types::{Budget, Chunk, Decode, Sequence};
use crate::ops::{BLOCK_TOKENS, blocks_for};

/// A sequence with blocks.
#[derive(Debug)]
pub struct Running {
    pub sequence: Sequence,
    /// Steps before it came.
    pub came: u64,
    /// The step that fed its first token.
    began: Option<u64>,
    blocks: Vec<BlockId>,
    /// Blocks that others can find, as far as their contents are known.
    published: usize,
    /// Tokens whose keys and values are cached.
    cached: usize,
    /// Tokens to read before the next follows.
    goal: usize,
    /// Pictures that have been read.
    read: usize,
    /// Pictures that are read or claimed.
    claimed: usize,
}

impl Running {
    /// Shares the blocks `found`, which hold the beginning, and takes new ones for the rest of what is known. The
    /// caller has seen that there are enough.
    pub fn new(sequence: Sequence, came: u64, found: Vec<BlockId>, pool: &mut BlockPool) -> Self {
        for block in &found {
            pool.share(*block);
        }
        let (published, cached, goal) = (found.len(), found.len() * BLOCK_TOKENS, sequence.content.len());
        let mut blocks = found;
        blocks.extend((blocks.len()..blocks_for(goal)).map_while(|_| pool.take()));
        let read = sequence.content.pictures().iter().take_while(|picture| picture.end() <= cached).count();
        Self { sequence, came, began: None, blocks, published, cached, goal, read, claimed: read }
    }

    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Whether all that is known at the start is cached, so that tokens follow one by one.
    pub fn decodes(&self) -> bool {
        self.cached >= self.goal
    }

    /// Whether the token that follows from the next is still part of the sequence.
    pub fn may_grow(&self) -> bool {
        self.cached + 1 < self.sequence.max_tokens
    }

    /// Whether the next token has a place in a block.
    pub fn has_room(&self) -> bool {
        self.cached < self.blocks.len() * BLOCK_TOKENS
    }

    /// Gets a block more.
    pub fn grow(&mut self, block: BlockId) {
        self.blocks.push(block);
    }

    /// Whether it decoded before another came, so many steps before.
    pub fn decoded_before(&self, came: u64) -> bool {
        self.began.is_some_and(|began| began <= came)
    }

    /// Feeds the next token, in the step of that number.
    pub fn decode(&mut self, step: u64) -> Decode {
        self.began.get_or_insert(step);
        self.cached += 1;
        Decode { id: self.sequence.id, position: self.cached - 1 }
    }

    /// What is to do until it decodes.
    pub fn left(&self, encoder: &EncoderCache) -> Budget {
        let pictures = self.sequence.content.pictures();
        let claimed = pictures[self.read..self.claimed].iter().map(|picture| encoder.missing(&picture.key));
        let unclaimed = pictures[self.claimed..].iter().map(|picture| picture.tiles);
        Budget { tokens: self.goal.saturating_sub(self.cached), tiles: claimed.chain(unclaimed).sum() }
    }

    /// The picture that is to be claimed next.
    pub fn unclaimed(&self) -> Option<Picture> {
        self.sequence.content.pictures().get(self.claimed).copied()
    }

    /// It is claimed.
    pub fn claim(&mut self) {
        self.claimed += 1;
    }

    /// The claimed pictures that are not read, by index.
    pub fn claims(&self) -> impl Iterator<Item = (usize, Picture)> {
        (self.read..self.claimed).map(|index| (index, self.sequence.content.pictures()[index]))
    }

    /// Tokens that can be read now: up to the first picture that is not claimed.
    pub fn readable(&self) -> usize {
        let end = self.unclaimed().map_or(self.goal, |picture| picture.start.min(self.goal));
        end.saturating_sub(self.cached)
    }

    /// Reads the next `rows` tokens, and lets go of the pictures in them.
    pub fn prefill(&mut self, rows: usize, encoder: &mut EncoderCache) -> Chunk {
        let start = self.cached;
        self.cached += rows;
        let pictures = &self.sequence.content.pictures()[self.read..self.claimed];
        for picture in pictures.iter().take_while(|picture| picture.end() <= self.cached) {
            encoder.release(&picture.key);
            self.read += 1;
        }
        Chunk { id: self.sequence.id, start, rows, last: self.decodes() }
    }

    /// Lets others find the blocks that are full.
    pub fn publish(&mut self, pool: &mut BlockPool) {
        let hashes = self.sequence.content.hashes();
        while self.published < (self.cached / BLOCK_TOKENS).min(hashes.len()) {
            pool.publish(self.blocks[self.published], hashes[self.published]);
            self.published += 1;
        }
    }

    /// Gives up blocks and pictures. The end of a sequence is of less use to others than its beginning.
    pub fn give_up(self, pool: &mut BlockPool, encoder: &mut EncoderCache) -> Sequence {
        self.claims().for_each(|(_, picture)| encoder.release(&picture.key));
        self.blocks.iter().rev().for_each(|block| pool.release(*block));
        self.sequence
    }
}

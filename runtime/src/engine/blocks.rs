//! Which blocks of the KV cache are in use, and which hold tokens that another sequence may take over. Knows
//! blocks by number and contents by hash, no tensors.

use std::collections::{BTreeMap, HashMap};

use super::prefix::BlockHash;

/// Number of a block in the KV cache.
pub type BlockId = u32;

/// All blocks but the dummy. A block is in use by one sequence or, when it is full and its contents are known, by
/// several; or it is idle with contents that may be found again; or it is free.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    found: HashMap<BlockHash, BlockId>,
    /// Idle blocks with contents, by when they became idle.
    idle: BTreeMap<u64, BlockId>,
    clock: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    users: u32,
    hash: Option<BlockHash>,
    /// Its key in `idle`.
    idle_since: u64,
}

impl BlockPool {
    /// `blocks` free blocks with the numbers from 1 on.
    pub fn new(blocks: usize) -> Self {
        let blocks = blocks.min(BlockId::MAX as usize - 1);
        Self {
            blocks: vec![Block::default(); blocks + 1],
            free: (1..=blocks as BlockId).rev().collect(),
            found: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Number of blocks.
    pub fn total(&self) -> usize {
        self.blocks.len() - 1
    }

    /// Blocks that can be taken now: free and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks in use.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Takes a block for one sequence: a free one, or else the one that has been idle longest, whose contents are lost.
    pub fn take(&mut self) -> Option<BlockId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.idle.pop_first()?.1,
        };
        self.forget(id);
        self.blocks[id as usize].users = 1;
        Some(id)
    }

    /// The blocks of the longest known prefix of `hashes`.
    pub fn find(&self, hashes: &[BlockHash]) -> Vec<BlockId> {
        hashes.iter().map_while(|hash| self.found.get(hash).copied()).collect()
    }

    /// How many of `blocks` are idle.
    pub fn idle_among(&self, blocks: &[BlockId]) -> usize {
        blocks.iter().filter(|id| self.blocks[**id as usize].users == 0).count()
    }

    /// Takes a block that was found for one sequence more.
    pub fn share(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.users == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.users += 1;
    }

    /// Lets others find a full block, unless they find the same contents elsewhere.
    pub fn publish(&mut self, id: BlockId, hash: BlockHash) {
        let block = &mut self.blocks[id as usize];
        if block.hash.is_none() && !self.found.contains_key(&hash) {
            block.hash = Some(hash);
            self.found.insert(hash, id);
        }
    }

    /// Lets nobody find a block any more.
    pub fn forget(&mut self, id: BlockId) {
        if let Some(hash) = self.blocks[id as usize].hash.take() {
            self.found.remove(&hash);
        }
    }

    /// One sequence less uses a block.
    pub fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        block.users -= 1;
        if block.users > 0 {
            return;
        }
        if block.hash.is_some() {
            self.clock += 1;
            block.idle_since = self.clock;
            self.idle.insert(self.clock, id);
        } else {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> BlockHash {
        [n; 32]
    }

    #[test]
    fn the_block_that_is_idle_longest_goes_first_and_is_found_no_more() {
        let mut pool = BlockPool::new(3);
        let taken = [1, 2, 3].map(|n| {
            let id = pool.take().unwrap();
            pool.publish(id, hash(n));
            id
        });
        assert_eq!((pool.take(), pool.used()), (None, 3));
        for id in [taken[1], taken[2], taken[0]] {
            pool.release(id);
        }
        assert_eq!((pool.available(), pool.used()), (3, 0));
        assert_eq!(pool.find(&[hash(1), hash(2), hash(3)]), taken);
        assert_eq!(pool.take(), Some(taken[1]));
        assert_eq!(pool.find(&[hash(1), hash(2), hash(3)]), taken[..1]);
        pool.share(taken[2]);
        assert_eq!((pool.take(), pool.take()), (Some(taken[0]), None));
    }

    #[test]
    fn a_shared_block_is_in_use_until_the_last_sequence_lets_go() {
        let mut pool = BlockPool::new(1);
        let id = pool.take().unwrap();
        pool.publish(id, hash(1));
        pool.share(id);
        pool.release(id);
        assert_eq!((pool.used(), pool.take()), (1, None));
        pool.release(id);
        assert_eq!((pool.used(), pool.idle_among(&[id])), (0, 1));
    }

    #[test]
    fn forgotten_contents_and_contents_of_which_there_are_two() {
        let mut pool = BlockPool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        pool.publish(first, hash(1));
        pool.publish(second, hash(1));
        assert_eq!(pool.find(&[hash(1)]), [first]);
        pool.release(second);
        assert_eq!(pool.take(), Some(second));
        pool.forget(first);
        assert!(pool.find(&[hash(1)]).is_empty());
        pool.release(first);
        assert_eq!((pool.take(), pool.used()), (Some(first), 2));
    }
}

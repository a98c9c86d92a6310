//! Which work the next step does. Pure: no device, no clock, no channel.
//!
//! Sequences are admitted in the order of their arrival, when there are blocks for their prompt; what the prefix cache
//! knows of it is taken over. All that have read their prompt get a token in every step, but for steps that see pictures
//! for others of their own burst. Between these, one piece of other work a step: tiles of pictures, or chunks of prompts,
//! by turns for the oldest sequence and for the one that has least left, so that short ones need not wait for long ones,
//! nor long ones for ever. Beside those that decoded before it came a piece is small; a burst that came together is read
//! in large ones to its end. When blocks run out, the sequence that arrived last gives its blocks up, goes back to the
//! head of the queue and is read again later. What is decoded may become known a step later than it is computed.

mod reading;
mod running;
mod types;

use std::collections::VecDeque;

pub use types::{Admission, Budget, Chunk, Counts, Decode, Limits, Sequence, SequenceId, Step, Tiles, Work};

use super::blocks::BlockPool;
use super::encoder_cache::EncoderCache;
use super::prefix::Content;
use crate::image::ImageKey;
use crate::ops::{BLOCK_TOKENS, blocks_for};
use running::Running;

/// The queue, the running sequences, the blocks and the pictures.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: VecDeque<Waiting>,
    /// In the order of arrival; all of them arrived before those that wait.
    running: Vec<Running>,
    pool: BlockPool,
    encoder: EncoderCache,
    /// Whether the next piece of work is for the oldest sequence.
    oldest_next: bool,
    /// Steps so far.
    steps: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Waiting {
    sequence: Sequence,
    /// Steps before it came, or gave its blocks up.
    came: u64,
    /// Whether it ran before and gave its blocks up.
    preempted: bool,
}

impl Scheduler {
    /// An empty scheduler.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            running: Vec::new(),
            pool: BlockPool::new(limits.blocks),
            encoder: EncoderCache::new(limits.encoder_bytes, limits.row_bytes),
            oldest_next: true,
            steps: 0,
            counts: Counts::default(),
        }
    }

    /// Queues a sequence, whose id is higher than all before it. The caller has checked that it fits an empty cache.
    pub fn push(&mut self, sequence: Sequence) {
        self.waiting.push_back(Waiting { sequence, came: self.steps, preempted: false });
    }

    /// How many sequences may be pushed now so that none of them has to wait for another's end.
    pub fn places(&self) -> usize {
        if self.waiting.is_empty() { self.limits.sequences.saturating_sub(self.running.len()) } else { 0 }
    }

    /// Chooses the next step, taking for granted that it will be done; a sequence whose work failed is to be failed
    /// before the next.
    pub fn step(&mut self) -> Step {
        self.steps += 1;
        self.running.iter_mut().for_each(|running| running.publish(&mut self.pool));
        let admitted = self.admit();
        self.claim_pictures();
        let decode = if self.sees_for_a_burst() { Vec::new() } else { self.decode() };
        // What the work lets go of is still needed for it, and dropped with the next step.
        let dropped = self.encoder.dropped();
        let work = self.work();
        Step { admitted, decode, work, dropped }
    }

    /// A sequence's next token is known.
    pub fn token(&mut self, id: SequenceId, token: u32) {
        if let Some(content) = self.content_mut(id) {
            content.push(token);
        }
    }

    /// Forgets a sequence wherever it is. What it has computed may be found by others.
    pub fn finish(&mut self, id: SequenceId) {
        self.waiting.retain(|waiting| waiting.sequence.id != id);
        if let Some(mut running) = self.take_running(id) {
            running.publish(&mut self.pool);
            running.give_up(&mut self.pool, &mut self.encoder);
        }
    }

    /// Forgets a sequence whose work failed, and whatever was computed with its blocks.
    pub fn fail(&mut self, id: SequenceId) {
        self.waiting.retain(|waiting| waiting.sequence.id != id);
        if let Some(running) = self.take_running(id) {
            running.blocks().iter().for_each(|block| self.pool.forget(*block));
            running.give_up(&mut self.pool, &mut self.encoder);
        }
    }

    /// The tiles of a picture could not be computed: it begins anew for those that need it.
    pub fn restart_picture(&mut self, key: &ImageKey) {
        self.encoder.restart(key);
    }

    /// Tokens and blocks of a running sequence.
    pub fn get(&self, id: SequenceId) -> Option<(&Content, &[u32])> {
        let index = self.index(id)?;
        Some((&self.running[index].sequence.content, self.running[index].blocks()))
    }

    /// Whether nothing runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Number of running sequences.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// The pictures.
    pub fn encoder(&self) -> &EncoderCache {
        &self.encoder
    }

    /// What was done until now.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn index(&self, id: SequenceId) -> Option<usize> {
        self.running.binary_search_by_key(&id, |running| running.sequence.id).ok()
    }

    fn take_running(&mut self, id: SequenceId) -> Option<Running> {
        let index = self.index(id)?;
        Some(self.running.remove(index))
    }

    fn content_mut(&mut self, id: SequenceId) -> Option<&mut Content> {
        if let Some(index) = self.index(id) {
            return Some(&mut self.running[index].sequence.content);
        }
        let waiting = self.waiting.iter_mut().find(|waiting| waiting.sequence.id == id)?;
        Some(&mut waiting.sequence.content)
    }

    fn admit(&mut self) -> Vec<Admission> {
        let mut admitted = Vec::new();
        while self.running.len() < self.limits.sequences
            && let Some(Waiting { sequence, .. }) = self.waiting.front()
        {
            // The last token is always read, because the next follows from it.
            let content = &sequence.content;
            let known = content.len().saturating_sub(1) / BLOCK_TOKENS;
            let found = self.pool.find(&content.hashes()[..known.min(content.hashes().len())]);
            let wanted = blocks_for(content.len()) - found.len();
            // One block is left for each that decodes, or it would give way again at once.
            let decoding = self.running.iter().filter(|running| running.decodes()).count();
            let room = wanted + self.pool.idle_among(&found) + decoding <= self.pool.available();
            if !room || !self.may_read(content, found.len() * BLOCK_TOKENS) {
                break;
            }
            let Some(Waiting { sequence, came, preempted }) = self.waiting.pop_front() else { break };
            let cached_tokens = found.len() * BLOCK_TOKENS;
            if preempted {
                self.counts.read_again_tokens += (sequence.content.len() - cached_tokens) as u64;
            } else {
                admitted.push(Admission { id: sequence.id, cached_tokens });
                self.counts.found_tokens += cached_tokens as u64;
            }
            self.running.push(Running::new(sequence, came, found, &mut self.pool));
        }
        admitted
    }

    /// Whether one more prompt may be read beside those that are being read.
    fn may_read(&self, content: &Content, cached: usize) -> bool {
        let mut left =
            self.running.iter().filter(|running| !running.decodes()).map(|running| running.left(&self.encoder));
        let Some(first) = left.next() else { return true };
        let sum = left.fold(first, |sum, next| sum + next);
        let tiles =
            content.pictures().iter().filter(|picture| picture.end() > cached).map(|picture| picture.tiles).sum();
        let sum = sum + Budget { tokens: content.len() - cached, tiles };
        sum.tokens <= self.limits.reading.tokens && sum.tiles <= self.limits.reading.tiles
    }

    /// One token more for each sequence that has read its prompt.
    fn decode(&mut self) -> Vec<Decode> {
        let (mut decode, mut index) = (Vec::new(), 0);
        while index < self.running.len() {
            let running = &self.running[index];
            let grows = running.decodes() && running.may_grow();
            if grows && (running.has_room() || self.make_room(index)) {
                decode.push(self.running[index].decode(self.steps));
            }
            index += 1;
        }
        decode
    }

    /// Takes a block for the sequence at `index`, if need be from those that arrived after it; it gives way itself
    /// when there are none.
    fn make_room(&mut self, index: usize) -> bool {
        loop {
            if let Some(block) = self.pool.take() {
                self.running[index].grow(block);
                return true;
            }
            let Some(last) = self.running.pop() else { return false };
            self.counts.preemptions += 1;
            let sequence = last.give_up(&mut self.pool, &mut self.encoder);
            self.waiting.push_front(Waiting { sequence, came: self.steps, preempted: true });
            if index >= self.running.len() {
                return false;
            }
        }
    }
}

//! Which work the next step does. Pure: no device, no clock, no channel. Sequences are admitted
//! first come, first served, when a slot and their tokens are free; while any of them decodes,
//! prompts are read in small chunks between the decode steps, so that running streams keep moving.

use std::collections::VecDeque;

/// Names a sequence; given out by the worker.
pub type SequenceId = u64;

/// Sizes of the scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences at the same time.
    pub slots: usize,
    /// Tokens of the KV cache, all sequences together.
    pub kv_tokens: usize,
    /// Prompt tokens in one step while something decodes.
    pub chunk_while_decoding: usize,
    /// Prompt tokens in one step otherwise.
    pub chunk: usize,
}

/// What the scheduler knows of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Tokens of the prompt; at least one.
    pub prompt_tokens: usize,
    /// Most tokens that it will generate.
    pub max_new_tokens: usize,
    /// Pictures to encode before the prompt is read.
    pub images: usize,
}

impl Sequence {
    fn reserved(&self) -> usize {
        self.prompt_tokens.saturating_add(self.max_new_tokens)
    }
}

/// One token of a running sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decode {
    /// The sequence.
    pub id: SequenceId,
    /// Its place in the KV cache.
    pub slot: usize,
    /// Position of the token that is fed.
    pub position: usize,
}

/// Work for a sequence that does not generate yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run the vision tower on one picture.
    Encode {
        /// The sequence.
        id: SequenceId,
        /// Index of the picture.
        image: usize,
    },
    /// Read part of the prompt.
    Prefill {
        /// The sequence.
        id: SequenceId,
        /// Its place in the KV cache.
        slot: usize,
        /// First token.
        start: usize,
        /// Number of tokens.
        rows: usize,
        /// Whether the prompt ends here, so that a token follows.
        last: bool,
    },
}

/// One step: decode all of `decode` together, then `work`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Sequences that get their next token.
    pub decode: Vec<Decode>,
    /// At most one piece of other work.
    pub work: Option<Work>,
}

#[derive(Debug)]
struct Running {
    sequence: Sequence,
    slot: usize,
    encoded: usize,
    cached: usize,
}

impl Running {
    fn decodes(&self) -> bool {
        self.cached >= self.sequence.prompt_tokens
    }
}

/// The queue and the running sequences.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: VecDeque<Sequence>,
    running: Vec<Running>,
    free_slots: Vec<usize>,
    reserved: usize,
}

impl Scheduler {
    /// An empty scheduler.
    pub fn new(limits: Limits) -> Self {
        let free_slots = (0..limits.slots).rev().collect();
        Self { limits, waiting: VecDeque::new(), running: Vec::new(), free_slots, reserved: 0 }
    }

    /// Queues a sequence. The caller has checked that it fits an empty cache.
    pub fn push(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Forgets a sequence wherever it is, and frees its slot and tokens.
    pub fn remove(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(index) = self.running.iter().position(|running| running.sequence.id == id) {
            let running = self.running.remove(index);
            self.free_slots.push(running.slot);
            self.reserved -= running.sequence.reserved();
        }
    }

    /// Chooses the next step, taking for granted that it will be done; a sequence whose work failed is removed.
    pub fn step(&mut self) -> Step {
        self.admit();
        let mut decode = Vec::new();
        for running in self.running.iter_mut().filter(|running| running.decodes()) {
            decode.push(Decode { id: running.sequence.id, slot: running.slot, position: running.cached });
            running.cached += 1;
        }
        let work = self.work(!decode.is_empty());
        Step { decode, work }
    }

    fn admit(&mut self) {
        while let Some(next) = self.waiting.front() {
            let needed = next.reserved();
            if self.reserved.saturating_add(needed) > self.limits.kv_tokens {
                return;
            }
            let Some(slot) = self.free_slots.pop() else { return };
            let Some(sequence) = self.waiting.pop_front() else { return };
            self.reserved += needed;
            self.running.push(Running { sequence, slot, encoded: 0, cached: 0 });
        }
    }

    /// The next piece for the sequence that was admitted first.
    fn work(&mut self, decoding: bool) -> Option<Work> {
        let chunk = if decoding { self.limits.chunk_while_decoding } else { self.limits.chunk };
        let running = self.running.iter_mut().find(|running| !running.decodes())?;
        let (id, slot) = (running.sequence.id, running.slot);
        if running.encoded < running.sequence.images {
            running.encoded += 1;
            return Some(Work::Encode { id, image: running.encoded - 1 });
        }
        let (start, total) = (running.cached, running.sequence.prompt_tokens);
        let rows = chunk.max(1).min(total - start);
        running.cached += rows;
        Some(Work::Prefill { id, slot, start, rows, last: running.cached == total })
    }

    /// Whether nothing runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Number of running sequences.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Tokens that are cached now.
    pub fn cached_tokens(&self) -> usize {
        self.running.iter().map(|running| running.cached).sum()
    }
}

#[cfg(test)]
mod tests;

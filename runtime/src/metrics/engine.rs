//! Counters that follow the engine's own sums.

use std::sync::{Mutex, PoisonError};

use prometheus::IntCounter;
use vlm_contract::metrics as names;

use crate::engine::scheduler::Counts;

/// What the engine counts by itself.
pub struct EngineCounters {
    counters: [IntCounter; 8],
    /// Two scrapes at once must not both add what is new.
    adding: Mutex<()>,
}

impl EngineCounters {
    /// All at zero. Fails only by a wrong name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = [
            IntCounter::new(names::PREFIX_CACHE_HIT_TOKENS, "Tokens of prompts that were cached already")?,
            IntCounter::new(names::ENCODER_CACHE_HITS, "Pictures whose rows were there or under way")?,
            IntCounter::new(names::ENCODER_CACHE_MISSES, "Pictures that the vision tower had to see")?,
            IntCounter::new(names::VISION_TILES, "Tiles that went through the vision tower")?,
            IntCounter::new(names::VISION_STEPS, "Steps in which tiles went through the vision tower")?,
            IntCounter::new(names::PREEMPTIONS, "Times that a request gave its KV blocks up for an older one")?,
            IntCounter::new(names::GRAPH_HITS, "Decode steps replayed from a recorded graph")?,
            IntCounter::new(names::GRAPH_MISSES, "Decode steps on a GPU that no recorded graph was for")?,
        ];
        Ok(Self { counters, adding: Mutex::new(()) })
    }

    /// All of them.
    pub fn all(&self) -> &[IntCounter] {
        &self.counters
    }

    /// Brings every counter to the engine's sum.
    pub fn advance(&self, now: &Counts) {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = [
            now.found_tokens,
            now.encoder_hits,
            now.encoder_misses,
            now.tiles,
            now.tile_steps,
            now.preemptions,
            now.graph_hits,
            now.graph_misses,
        ];
        for (counter, sum) in self.counters.iter().zip(sums) {
            counter.inc_by(sum.saturating_sub(counter.get()));
        }
    }
}

//! What must hold in every step, and at the end.

use std::collections::{HashMap, HashSet};

use vlm_runtime::engine::prefix::Picture;
use vlm_runtime::engine::scheduler::{SequenceId, Step, Work};
use vlm_runtime::image::ImageKey;
use vlm_runtime::ops::BLOCK_TOKENS;

use super::{Alive, World, chain, content, follows, link};

impl World {
    /// Prompts that wait to be read hold no more than they may. Tiles are counted where one has just been admitted:
    /// those of a picture that failed are to be seen again.
    pub(super) fn check_reading(&self, admitted: bool) {
        let reading = || self.alive.values().filter(|alive| alive.running && alive.cached < alive.goal);
        let left: Vec<usize> = reading().map(|alive| alive.goal - alive.cached).collect();
        let most = self.scenario.limits.reading;
        assert!(left.len() <= 1 || left.iter().sum::<usize>() <= most.tokens, "{left:?} tokens are to be read");
        let unseen = |picture: &Picture| picture.tiles - self.tiles.get(&picture.key).copied().unwrap_or_default();
        let of = |alive: &Alive| {
            alive.content.pictures().iter().filter(|picture| picture.end() > alive.cached).map(unseen).sum()
        };
        let left: Vec<usize> = reading().map(of).collect();
        let within = left.len() <= 1 || left.iter().sum::<usize>() <= most.tiles;
        assert!(within || !admitted, "{left:?} tiles are to be seen");
    }

    /// Blocks in use are those of running sequences, and only equal contents are shared.
    pub(super) fn check_blocks(&self) {
        let tables = self.alive.keys().filter_map(|id| Some((id, self.scheduler.get(*id)?.1)));
        let mut owners: HashMap<u32, (SequenceId, usize)> = HashMap::new();
        for (id, blocks) in tables {
            let mut own = HashSet::new();
            for (n, block) in blocks.iter().enumerate() {
                assert!((1..=self.scenario.limits.blocks as u32).contains(block), "there is no block {block}");
                assert!(own.insert(block), "{id} has block {block} twice");
                if let Some((other, at)) = owners.insert(*block, (*id, n)) {
                    let end = (n + 1) * BLOCK_TOKENS;
                    let hash = |id: &SequenceId| self.alive[id].chain.get(end - 1).copied();
                    let same = at == n && hash(id).is_some() && hash(id) == hash(&other);
                    assert!(same, "block {block} belongs to {id} and to {other}");
                }
            }
        }
        assert_eq!(owners.len(), self.scheduler.pool().used(), "blocks are in use by nobody");
    }

    /// Everyone who has read all gets a token, but in a step that sees pictures for a burst of which all of them are.
    pub(super) fn check_decodes(&self, step: &Step) {
        let ids: Vec<SequenceId> = step.decode.iter().map(|decode| decode.id).collect();
        // Whose last token is still to be told decodes no more.
        let ended = |alive: &Alive| alive.chain.len() == alive.prompt_tokens + alive.new_tokens;
        let due = self.alive.iter().filter(|(_, alive)| alive.running && alive.cached != usize::MAX && !ended(alive));
        let due: Vec<SequenceId> = due.filter(|(_, alive)| alive.cached >= alive.goal).map(|(id, _)| *id).collect();
        let reads = self
            .alive
            .values()
            .filter(|alive| alive.running && (alive.cached == usize::MAX || alive.cached < alive.goal));
        let came = reads.map(|alive| alive.came).min().unwrap_or_default();
        let burst = due.iter().all(|id| self.alive[id].began.is_none_or(|began| began > came));
        if ids.is_empty() && burst && matches!(step.work, Some(Work::Encode(_))) {
            return;
        }
        assert_eq!(ids, due, "not everyone who decodes gets a token");
    }

    /// The oldest that reads has every second piece of work at least.
    pub(super) fn check_turn(&mut self, step: &Step) {
        let Some(work) = &step.work else { return };
        let reads = |alive: &&Alive| alive.running && (alive.cached == usize::MAX || alive.cached < alive.goal);
        let oldest = self.alive.iter().find(|(_, alive)| reads(alive)).map(|(id, _)| *id);
        let served = match work {
            Work::Encode(tiles) => {
                // A picture that others need as well may be named for them.
                let keys: Vec<ImageKey> = tiles.iter().map(|tiles| tiles.key).collect();
                oldest.is_some_and(|id| self.alive[&id].content.pictures().iter().any(|p| keys.contains(&p.key)))
                    || tiles.iter().any(|tiles| Some(tiles.id) == oldest)
            }
            Work::Prefill(chunks) => chunks.iter().any(|chunk| Some(chunk.id) == oldest),
        };
        let before = if self.passed_over.0 == oldest { self.passed_over.1 } else { 0 };
        self.passed_over = (oldest, if served { 0 } else { before + 1 });
        // Where pictures wait for room, the oldest may wait for those that hold it.
        assert!(!self.scenario.roomy || self.passed_over.1 <= 1, "{oldest:?} is passed over again and again");
    }

    /// The whole answer is the one that the request gets alone.
    pub(super) fn check_answer(&self, id: SequenceId) {
        let arrival = &self.scenario.arrivals[id as usize];
        let mut alone = content(arrival);
        let mut last = *chain(&alone).last().unwrap();
        for _ in 0..arrival.new_tokens {
            let token = follows(last);
            alone.push(token);
            last = link(last, u64::from(token));
        }
        let got = &self.alive[&id].content;
        assert_eq!(got.ids(0..got.len()), alone.ids(0..alone.len()), "the answer of {id}");
    }

    pub(super) fn check_pictures(&self) {
        let largest = self.scenario.arrivals.iter().flat_map(|arrival| &arrival.prompt.images);
        let largest = largest.map(|image| image.tokens as u64).max().unwrap_or(0);
        let bytes = self.scheduler.encoder().bytes();
        assert!(bytes <= self.scenario.limits.encoder_bytes.max(largest), "{bytes} bytes of pictures");
    }

    /// Everything has ended, and nothing is left.
    pub fn check_end(&self) {
        assert_eq!(self.ended.len(), self.scenario.arrivals.len(), "a request was lost");
        assert!(self.scheduler.is_idle());
        let pool = self.scheduler.pool();
        assert_eq!((pool.used(), pool.available()), (0, self.scenario.limits.blocks), "a block leaked");
        assert_eq!(self.scheduler.encoder().in_use(), 0, "a picture leaked");
    }
}

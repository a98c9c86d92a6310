//! A world around the scheduler that does its steps with numbers in place of tensors, and checks each of them: every
//! place of the KV cache holds a hash of all that it stands for, and the next token follows from what is read there.

mod checks;

use std::collections::{BTreeMap, HashMap, HashSet};

use vlm_runtime::engine::prefix::{Content, PictureRows};
use vlm_runtime::engine::scheduler::{Budget, Chunk, Decode, Scheduler, Sequence, SequenceId, Step, Tiles, Work};
use vlm_runtime::image::ImageKey;
use vlm_runtime::ops::BLOCK_TOKENS;

use crate::random::{Arrival, Scenario, mix};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    Cancelled,
    Failed,
}

/// A request that has arrived and not ended.
struct Alive {
    content: Content,
    prompt_tokens: usize,
    new_tokens: usize,
    /// The hash of everything up to each position.
    chain: Vec<u64>,
    /// Places that hold what they should.
    cached: usize,
    /// Tokens to read until it decodes.
    goal: usize,
    running: bool,
    /// Steps before it came, or had to come again.
    came: usize,
    /// The step with its first token after that.
    began: Option<usize>,
}

pub struct World {
    pub scheduler: Scheduler,
    pub ended: BTreeMap<SequenceId, End>,
    pub steps: usize,
    scenario: Scenario,
    alive: BTreeMap<SequenceId, Alive>,
    cells: Vec<u64>,
    /// Tiles that are computed, by picture.
    tiles: HashMap<ImageKey, usize>,
    /// Tokens that were computed and that the scheduler has not been told.
    late: Vec<(SequenceId, u32)>,
    last_admitted: Option<SequenceId>,
    /// Pieces of work since the oldest that reads had one.
    passed_over: (Option<SequenceId>, usize),
    arrived: usize,
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            scheduler: Scheduler::new(scenario.limits),
            ended: BTreeMap::new(),
            steps: 0,
            cells: vec![0; (scenario.limits.blocks + 1) * BLOCK_TOKENS],
            scenario: scenario.clone(),
            alive: BTreeMap::new(),
            tiles: HashMap::new(),
            late: Vec::new(),
            last_admitted: None,
            passed_over: (None, 0),
            arrived: 0,
        }
    }

    pub fn alive(&self) -> Vec<SequenceId> {
        self.alive.keys().copied().collect()
    }

    pub fn over(&self) -> bool {
        self.alive.is_empty() && self.arrived == self.scenario.arrivals.len()
    }

    /// Lets those arrive whose time has come, or the next when nothing else is left.
    pub fn arrivals(&mut self) {
        while let Some(arrival) = self.scenario.arrivals.get(self.arrived)
            && (arrival.step <= self.steps || self.alive.is_empty())
        {
            let (id, arrival) = (self.arrived as SequenceId, arrival.clone());
            self.arrived += 1;
            let content = content(&arrival);
            let (prompt_tokens, new_tokens) = (content.len(), arrival.new_tokens);
            let chain = chain(&content);
            let max_tokens = prompt_tokens + new_tokens;
            self.scheduler.push(Sequence { id, content: content.clone(), max_tokens });
            let goal = prompt_tokens;
            let (running, came, began) = (false, self.steps, None);
            let alive = Alive { content, prompt_tokens, new_tokens, chain, cached: 0, goal, running, came, began };
            self.alive.insert(id, alive);
        }
    }

    pub fn cancel(&mut self, id: SequenceId) {
        self.scheduler.finish(id);
        self.end(id, End::Cancelled);
    }

    fn end(&mut self, id: SequenceId, how: End) {
        assert!(self.alive.remove(&id).is_some() && self.ended.insert(id, how).is_none(), "{id} ends twice");
    }

    /// One step. `fails` says whether the work of a sequence fails; `leaves` whether its client is gone when its next
    /// token comes.
    pub fn step(&mut self, mut fails: impl FnMut(SequenceId) -> bool, mut leaves: impl FnMut(SequenceId) -> bool) {
        let step = self.scheduler.step();
        self.steps += 1;
        self.see_admissions(&step);
        for key in &step.dropped {
            self.tiles.remove(key);
        }
        self.check_blocks();
        self.check_decodes(&step);
        self.check_turn(&step);
        let budget = self.budget(&step);
        let nothing = step.decode.is_empty() && step.work.is_none();
        assert!(!nothing || !self.late.is_empty(), "a step does nothing although something is left");
        let late = |id| self.late.iter().any(|(other, _)| *other == id);
        let known = self.late.is_empty() || step.decode.iter().all(|decode| late(decode.id));
        if self.scenario.behind && step.work.is_none() && !step.decode.is_empty() && known {
            let before = std::mem::take(&mut self.late);
            self.decode(&step.decode, &mut fails);
            self.tell(before, &mut leaves);
        } else {
            self.settle(&mut leaves);
            self.decode(&step.decode, &mut fails);
            self.settle(&mut leaves);
        }
        match step.work {
            Some(Work::Encode(tiles)) => {
                assert!(tiles.iter().map(|tiles| tiles.count).sum::<usize>() <= budget.tiles, "too many tiles");
                for tiles in &tiles {
                    self.encode(tiles, &mut fails);
                }
            }
            Some(Work::Prefill(chunks)) => {
                assert!(chunks.iter().map(|chunk| chunk.rows).sum::<usize>() <= budget.tokens, "too many tokens");
                let different: HashSet<SequenceId> = chunks.iter().map(|chunk| chunk.id).collect();
                assert_eq!(different.len(), chunks.len(), "two chunks of one sequence");
                for chunk in &chunks {
                    self.prefill(chunk, &mut fails);
                }
                chunks.iter().filter(|chunk| chunk.last).for_each(|chunk| self.token(chunk.id));
                self.settle(&mut leaves);
            }
            None => {}
        }
        self.check_pictures();
    }

    /// The most work besides decoding: less beside those that decoded before the first of those that read came.
    fn budget(&mut self, step: &Step) -> Budget {
        let steps = self.steps;
        for decode in &step.decode {
            self.alive.get_mut(&decode.id).expect("a sequence decodes that is gone").began.get_or_insert(steps);
        }
        let reads = || {
            self.alive
                .values()
                .filter(|alive| alive.running && (alive.cached == usize::MAX || alive.cached < alive.goal))
        };
        let came = reads().map(|alive| alive.came).min().unwrap_or_default();
        let before = self.alive.values().filter(|alive| alive.began.is_some_and(|began| began <= came)).count();
        self.scenario.limits.budget(reads().count(), before)
    }

    /// Takes note of who runs and who does not any more.
    fn see_admissions(&mut self, step: &Step) {
        for admission in &step.admitted {
            assert!(self.last_admitted < Some(admission.id), "{} was overtaken", admission.id);
            self.last_admitted = Some(admission.id);
            let alive = self.alive.get_mut(&admission.id).expect("a sequence is admitted that is gone");
            assert!(admission.cached_tokens < alive.prompt_tokens, "nothing is left to read");
            (alive.cached, alive.running) = (admission.cached_tokens, true);
        }
        assert!(self.scheduler.running() <= self.scenario.limits.sequences);
        let chunk_start = |id| match &step.work {
            Some(Work::Prefill(chunks)) => chunks.iter().find(|chunk| chunk.id == id).map(|chunk| chunk.start),
            _ => None,
        };
        for (id, alive) in &mut self.alive {
            let runs = self.scheduler.get(*id).is_some();
            if runs && !alive.running {
                // What was found in the cache is checked when it is read.
                alive.cached = chunk_start(*id).unwrap_or(usize::MAX);
                alive.goal = alive.content.len();
            } else if runs && alive.cached == usize::MAX {
                alive.cached = chunk_start(*id).unwrap_or(usize::MAX);
            }
            if alive.running && !runs {
                (alive.came, alive.began) = (self.steps, None);
            }
            alive.running = runs;
        }
        self.check_reading(!step.admitted.is_empty());
    }

    /// Feeds those that did not end with what has been told since the step was chosen.
    fn decode(&mut self, decode: &[Decode], fails: &mut impl FnMut(SequenceId) -> bool) {
        for Decode { id, position } in decode {
            let Some(alive) = self.alive.get(id) else { continue };
            assert_eq!((*position, alive.cached), (alive.chain.len() - 1, alive.chain.len() - 1));
            self.feed(*id, *position, 1, fails);
            self.token(*id);
        }
    }

    /// Tells the scheduler all tokens that it does not know.
    fn settle(&mut self, leaves: &mut impl FnMut(SequenceId) -> bool) {
        let late = std::mem::take(&mut self.late);
        self.tell(late, leaves);
    }

    fn prefill(&mut self, chunk: &Chunk, fails: &mut impl FnMut(SequenceId) -> bool) {
        let alive = self.alive.get(&chunk.id).expect("a sequence is read that is gone");
        assert!(chunk.rows > 0 && chunk.start == alive.cached, "{chunk:?} after {} tokens", alive.cached);
        assert_eq!(chunk.last, chunk.start + chunk.rows == alive.goal);
        for PictureRows { key, .. } in alive.content.rows_at(&(chunk.start..chunk.start + chunk.rows)) {
            let picture = alive.content.pictures().iter().find(|picture| picture.key == key).unwrap();
            assert_eq!(self.tiles.get(&key), Some(&picture.tiles), "a picture is read before it is seen");
        }
        self.feed(chunk.id, chunk.start, chunk.rows, fails);
    }

    /// Writes the places of some rows, and reads all before them as attention does.
    fn feed(&mut self, id: SequenceId, start: usize, rows: usize, fails: &mut impl FnMut(SequenceId) -> bool) {
        let fails = fails(id);
        let blocks = self.scheduler.get(id).expect("a sequence without blocks").1.to_vec();
        let place = |position: usize| blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS;
        let alive = self.alive.get_mut(&id).unwrap();
        for position in start..start + rows {
            // Work that fails leaves anything behind.
            self.cells[place(position)] = if fails { 1 } else { alive.chain[position] };
        }
        if fails {
            self.scheduler.fail(id);
            return self.end(id, End::Failed);
        }
        for position in 0..start + rows {
            assert_eq!(self.cells[place(position)], alive.chain[position], "{id} reads foreign tokens at {position}");
        }
        alive.cached = start + rows;
    }

    fn encode(&mut self, tiles: &Tiles, fails: &mut impl FnMut(SequenceId) -> bool) {
        // When another picture of the sequence has just failed, these tiles are computed all the same: for others.
        if let Some(alive) = self.alive.get(&tiles.id) {
            let picture = alive.content.pictures()[tiles.image];
            assert!(alive.running && picture.key == tiles.key && tiles.first + tiles.count <= picture.tiles);
        }
        if tiles.first > 0 {
            assert_eq!(self.tiles.get(&tiles.key), Some(&tiles.first), "tiles are left out or seen twice");
        }
        if self.alive.contains_key(&tiles.id) && fails(tiles.id) {
            self.scheduler.restart_picture(&tiles.key);
            self.scheduler.fail(tiles.id);
            return self.end(tiles.id, End::Failed);
        }
        self.tiles.insert(tiles.key, tiles.first + tiles.count);
    }

    /// Computes the token that follows from what was read.
    fn token(&mut self, id: SequenceId) {
        let Some(alive) = self.alive.get_mut(&id) else { return };
        assert_eq!(alive.cached, alive.chain.len(), "a token follows before everything is read");
        let last = alive.chain[alive.cached - 1];
        let token = follows(last);
        alive.chain.push(link(last, u64::from(token)));
        self.late.push((id, token));
    }

    /// Tells the scheduler tokens of those that are not gone.
    fn tell(&mut self, late: Vec<(SequenceId, u32)>, leaves: &mut impl FnMut(SequenceId) -> bool) {
        for (id, token) in late {
            let Some(alive) = self.alive.get_mut(&id) else { continue };
            self.scheduler.token(id, token);
            alive.content.push(token);
            if leaves(id) {
                self.cancel(id);
            } else if alive.content.len() == alive.prompt_tokens + alive.new_tokens {
                self.check_answer(id);
                self.scheduler.finish(id);
                self.end(id, End::Complete);
            }
        }
    }
}

fn content(arrival: &Arrival) -> Content {
    Content::new(&mut arrival.prompt.clone(), 1000, arrival.long).unwrap()
}

/// For every position a number that stands for everything up to it.
fn chain(content: &Content) -> Vec<u64> {
    let mut all: Vec<u64> = content.ids(0..content.len()).iter().map(|id| u64::from(*id)).collect();
    for picture in content.pictures() {
        let key = picture.key.bytes().iter().fold(0, |key, byte| mix(key, u64::from(*byte)));
        for (row, token) in all[picture.start..picture.end()].iter_mut().enumerate() {
            *token = mix(key, row as u64);
        }
    }
    let mut last = u64::from(content.long());
    for token in &mut all {
        last = link(last, *token);
        *token = last;
    }
    all
}

fn link(before: u64, token: u64) -> u64 {
    mix(before, token.wrapping_add(7))
}

fn follows(from: u64) -> u32 {
    (mix(from, 3) % 3) as u32
}

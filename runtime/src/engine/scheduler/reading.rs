//! The piece of work of a step besides decoding: which pictures are claimed, whose turn it is, and what fits beside it.

use super::super::encoder_cache::Claim;
use super::{Budget, Scheduler, Tiles, Work};

/// Tokens that take about as long as a tile, to compare sequences by what they have left.
const TILE_IN_TOKENS: usize = 256;

impl Scheduler {
    /// Whether the next piece of work is to see pictures for a burst, beside which nobody decodes: its first tokens would
    /// wait for the second ones of those that came with it, which cost next to nothing beside a prompt.
    pub(super) fn sees_for_a_burst(&self) -> bool {
        let reading = || self.running.iter().filter(|running| !running.decodes());
        let Some(came) = reading().map(|running| running.came).min() else { return false };
        let next =
            self.turns().into_iter().map_while(|index| self.next(index)).find(|next| !matches!(next, Next::Nothing));
        matches!(next, Some(Next::Encode)) && !self.running.iter().any(|running| running.decoded_before(came))
    }

    /// The next piece of work: for one sequence, filled up with those of the same kind for others.
    pub(super) fn work(&mut self) -> Option<Work> {
        let reading = || self.running.iter().filter(|running| !running.decodes());
        let came = reading().map(|running| running.came).min()?;
        // Those that came with them, or overtook them, have their tokens from the same burst.
        let before = self.running.iter().filter(|running| running.decoded_before(came)).count();
        let budget = self.limits.budget(reading().count(), before);
        for index in self.turns() {
            let work = match self.next(index)? {
                Next::Encode => Work::Encode(self.encode(index, budget)),
                Next::Prefill => Work::Prefill(self.prefill(index, budget)),
                // Others hold the pictures' room; they come to their end without it.
                Next::Nothing => continue,
            };
            self.oldest_next = !self.oldest_next;
            return Some(work);
        }
        None
    }

    /// Claims pictures in the order of arrival, as far as there is room: none overtakes one that waits for room.
    pub(super) fn claim_pictures(&mut self) {
        for running in self.running.iter_mut().filter(|running| !running.decodes()) {
            while let Some(picture) = running.unclaimed() {
                match self.encoder.claim(&picture) {
                    Claim::Hit => self.counts.encoder_hits += 1,
                    Claim::Miss => self.counts.encoder_misses += 1,
                    Claim::NoRoom => return,
                }
                running.claim();
            }
        }
    }

    /// The sequences that read, by index: first whose turn it is, then all in the order of arrival.
    fn turns(&self) -> Vec<usize> {
        let reading = || (0..self.running.len()).filter(|index| !self.running[*index].decodes());
        let left = |index: &usize| {
            let Budget { tokens, tiles } = self.running[*index].left(&self.encoder);
            tokens.saturating_add(tiles.saturating_mul(TILE_IN_TOKENS))
        };
        let first = if self.oldest_next { None } else { reading().min_by_key(left) };
        first.into_iter().chain(reading()).collect()
    }

    /// What a sequence needs next; `None` when it does not read.
    fn next(&self, index: usize) -> Option<Next> {
        let running = self.running.get(index).filter(|running| !running.decodes())?;
        if running.claims().any(|(_, picture)| self.encoder.missing(&picture.key) > 0) {
            return Some(Next::Encode);
        }
        Some(if running.readable() > 0 { Next::Prefill } else { Next::Nothing })
    }

    fn encode(&mut self, first: usize, budget: Budget) -> Vec<Tiles> {
        let (mut tiles, mut left) = (Vec::new(), budget.tiles.max(1));
        for index in std::iter::once(first).chain(0..self.running.len()) {
            let running = &self.running[index];
            for (image, picture) in running.claims() {
                let range = self.encoder.advance(&picture.key, left);
                if !range.is_empty() {
                    left -= range.len();
                    let (id, key) = (running.sequence.id, picture.key);
                    tiles.push(Tiles { id, image, key, first: range.start, count: range.len() });
                }
            }
        }
        self.counts.tiles += tiles.iter().map(|tiles| tiles.count as u64).sum::<u64>();
        self.counts.tile_steps += 1;
        tiles
    }

    fn prefill(&mut self, first: usize, budget: Budget) -> Vec<super::Chunk> {
        let (mut chunks, mut left) = (Vec::new(), budget.tokens.max(1));
        for index in std::iter::once(first).chain((0..self.running.len()).filter(|index| *index != first)) {
            if left == 0 || !matches!(self.next(index), Some(Next::Prefill)) {
                continue;
            }
            let running = &mut self.running[index];
            let rows = running.readable().min(left);
            left -= rows;
            chunks.push(running.prefill(rows, &mut self.encoder));
        }
        chunks
    }
}

/// What a sequence needs before it decodes.
enum Next {
    Encode,
    Prefill,
    /// Room for its next picture.
    Nothing,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Limits, Sequence};
    use super::*;
    use crate::engine::prefix::Content;
    use crate::image::{ImageKey, PreparedImage};
    use crate::prompt::Prompt;

    const SMALL: usize = 8;
    const LARGE: usize = 64;

    fn scheduler() -> Scheduler {
        Scheduler::new(Limits {
            sequences: 8,
            blocks: 1000,
            while_decoding: Budget { tokens: SMALL, tiles: 1 },
            alone: Budget { tokens: LARGE, tiles: 4 },
            reading: Budget { tokens: 1 << 20, tiles: 1 << 10 },
            encoder_bytes: 1 << 20,
            row_bytes: 1,
        })
    }

    fn push(scheduler: &mut Scheduler, id: u64) {
        let mut prompt = Prompt { ids: vec![id as u32; 2 * LARGE], image_token: 99, images: Vec::new() };
        let content = Content::new(&mut prompt, 100, false).unwrap();
        scheduler.push(Sequence { id, content, max_tokens: 1000 });
    }

    /// Rows of each step, and sequences that decode beside them, until nothing is left to read.
    fn read(scheduler: &mut Scheduler) -> Vec<(usize, usize)> {
        let mut pieces = Vec::new();
        loop {
            let step = scheduler.step();
            step.decode.iter().for_each(|decode| scheduler.token(decode.id, 1));
            let Some(Work::Prefill(chunks)) = step.work else { return pieces };
            chunks.iter().filter(|chunk| chunk.last).for_each(|chunk| scheduler.token(chunk.id, 1));
            pieces.push((chunks.iter().map(|chunk| chunk.rows).sum(), step.decode.len()));
        }
    }

    #[test]
    fn a_burst_is_read_in_large_pieces_to_its_end_and_what_comes_later_in_small_ones() {
        let mut scheduler = scheduler();
        (0..3).for_each(|id| push(&mut scheduler, id));
        let pieces = read(&mut scheduler);
        assert!(pieces.iter().all(|(rows, _)| *rows == LARGE) && pieces.len() == 6, "{pieces:?}");
        assert!(pieces.iter().any(|(_, decoding)| *decoding == 2), "{pieces:?}");
        push(&mut scheduler, 3);
        let pieces = read(&mut scheduler);
        assert!(pieces.iter().all(|piece| *piece == (SMALL, 3)) && pieces.len() == 16, "{pieces:?}");
        // Those that came with it have no claim to small ones.
        (0..3).for_each(|id| scheduler.finish(id));
        push(&mut scheduler, 4);
        assert_eq!(read(&mut scheduler)[0], (SMALL, 1));
    }

    /// A picture of four tiles and rows, and a word.
    fn push_picture(scheduler: &mut Scheduler, id: u64) {
        let key = ImageKey::of_pixels(&[id as f32]);
        let pixels = Vec::new().into();
        let image = PreparedImage { tiles: 4, height: 1, width: 1, pixels, tokens: 4, kept: None, key };
        let mut prompt =
            Prompt { ids: vec![99, 99, 99, 99, id as u32], image_token: 99, images: vec![Arc::new(image)] };
        let content = Content::new(&mut prompt, 100, false).unwrap();
        scheduler.push(Sequence { id, content, max_tokens: 1000 });
    }

    /// Sequences that decode in each step that sees pictures, until nothing is left to read.
    fn see(scheduler: &mut Scheduler) -> Vec<usize> {
        let mut beside = Vec::new();
        loop {
            let step = scheduler.step();
            step.decode.iter().for_each(|decode| scheduler.token(decode.id, 1));
            match step.work {
                Some(Work::Encode(_)) => beside.push(step.decode.len()),
                Some(Work::Prefill(chunks)) => {
                    chunks.iter().filter(|chunk| chunk.last).for_each(|chunk| scheduler.token(chunk.id, 1));
                }
                None => return beside,
            }
        }
    }

    #[test]
    fn while_pictures_of_a_burst_are_seen_nobody_of_it_decodes_and_whoever_decoded_before_goes_on() {
        let mut scheduler = scheduler();
        (0..3).for_each(|id| push_picture(&mut scheduler, id));
        assert_eq!(see(&mut scheduler), [0, 0, 0]);
        assert_eq!(scheduler.step().decode.len(), 3);
        (0..3).for_each(|id| scheduler.token(id, 1));
        push_picture(&mut scheduler, 3);
        // A tile a step beside them.
        assert_eq!(see(&mut scheduler), [3, 3, 3, 3]);
    }
}

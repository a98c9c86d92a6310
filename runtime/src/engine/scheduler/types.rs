//! What goes into the scheduler and what comes out.

use std::ops::{Add, Sub};

use serde::Serialize;

use super::super::prefix::Content;
use crate::image::ImageKey;

/// Names a sequence; given out by the worker, rising.
pub type SequenceId = u64;

/// An amount of work besides decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of prompts.
    pub tokens: usize,
    /// Tiles of pictures.
    pub tiles: usize,
}

impl Add for Budget {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { tokens: self.tokens.saturating_add(other.tokens), tiles: self.tiles.saturating_add(other.tiles) }
    }
}

/// Sizes of the scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences at the same time.
    pub sequences: usize,
    /// Blocks of the KV cache that sequences can have.
    pub blocks: usize,
    /// Most tokens or tiles of a step in which one sequence reads beside one that decoded before it came.
    pub while_decoding: Budget,
    /// Most tokens or tiles of any other step.
    pub alone: Budget,
    /// Most tokens and tiles of all prompts that are admitted and not read yet, where it is more than one prompt.
    pub reading: Budget,
    /// Bytes for rows of pictures.
    pub encoder_bytes: u64,
    /// Bytes of one such row.
    pub row_bytes: u64,
}

/// How much more work a step may have for each sequence that waits beside the first, for each that decodes.
const CROWD: usize = 8;

impl Limits {
    /// Most tokens or tiles of a step in which `reading` sequences have something left to read and `decoding` decoded
    /// before the first of them came. What makes those wait longer for their next token lets the others wait less for
    /// their first: where many read beside few a step does more at a time, up to what it may where none decodes.
    pub fn budget(&self, reading: usize, decoding: usize) -> Budget {
        if decoding == 0 {
            return self.alone;
        }
        let times = CROWD.saturating_mul(reading.saturating_sub(1)) / decoding;
        let more = |least: usize, most: usize| least.saturating_mul(times).min(most).max(least);
        Budget {
            tokens: more(self.while_decoding.tokens, self.alone.tokens),
            tiles: more(self.while_decoding.tiles, self.alone.tiles),
        }
    }
}

/// A sequence as it arrives.
#[derive(Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Its prompt; at least one token.
    pub content: Content,
    /// Most tokens that it will have, prompt and answer together.
    pub max_tokens: usize,
}

/// A sequence that runs from now on, for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The sequence.
    pub id: SequenceId,
    /// Tokens of its prompt that were found in the cache.
    pub cached_tokens: usize,
}

/// One token of a running sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decode {
    /// The sequence.
    pub id: SequenceId,
    /// Position of the token that is fed.
    pub position: usize,
}

impl Decode {
    /// The same as part of a text that is read.
    pub fn into_chunk(self) -> Chunk {
        Chunk { id: self.id, start: self.position, rows: 1, last: true }
    }
}

/// Consecutive tiles of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// A sequence that has the picture.
    pub id: SequenceId,
    /// Index of the picture in it.
    pub image: usize,
    /// The picture's name.
    pub key: ImageKey,
    /// First tile.
    pub first: usize,
    /// Number of tiles.
    pub count: usize,
}

/// Consecutive tokens of a prompt, or of one that is read again with what was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence.
    pub id: SequenceId,
    /// First position.
    pub start: usize,
    /// Number of tokens.
    pub rows: usize,
    /// Whether the next token follows from the last of these.
    pub last: bool,
}

/// Work for sequences that do not generate yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run the vision tower.
    Encode(Vec<Tiles>),
    /// Read parts of prompts, one a sequence.
    Prefill(Vec<Chunk>),
}

/// One step: drop `dropped`, decode all of `decode` together, then `work`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Sequences that run from now on.
    pub admitted: Vec<Admission>,
    /// Sequences that get their next token.
    pub decode: Vec<Decode>,
    /// At most one piece of other work.
    pub work: Option<Work>,
    /// Pictures whose rows nobody needs any more.
    pub dropped: Vec<ImageKey>,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Tokens of prompts that were found in the prefix cache.
    pub found_tokens: u64,
    /// Tokens that were read again after a preemption.
    pub read_again_tokens: u64,
    /// Times that a sequence gave its blocks up.
    pub preemptions: u64,
    /// Pictures whose rows were there or under way.
    pub encoder_hits: u64,
    /// Pictures that had to be computed.
    pub encoder_misses: u64,
    /// Tiles that went through the vision tower.
    pub tiles: u64,
    /// Steps in which some did.
    pub tile_steps: u64,
    /// Decode steps replayed from a recorded graph.
    pub graph_hits: u64,
    /// Decode steps on a GPU that no recorded graph was for.
    pub graph_misses: u64,
}

impl Sub for Counts {
    type Output = Self;

    /// What was done since an earlier moment.
    fn sub(self, earlier: Self) -> Self {
        Self {
            found_tokens: self.found_tokens - earlier.found_tokens,
            read_again_tokens: self.read_again_tokens - earlier.read_again_tokens,
            preemptions: self.preemptions - earlier.preemptions,
            encoder_hits: self.encoder_hits - earlier.encoder_hits,
            encoder_misses: self.encoder_misses - earlier.encoder_misses,
            tiles: self.tiles - earlier.tiles,
            tile_steps: self.tile_steps - earlier.tile_steps,
            graph_hits: self.graph_hits - earlier.graph_hits,
            graph_misses: self.graph_misses - earlier.graph_misses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_reads_in_larger_pieces_and_a_single_sequence_in_the_smallest() {
        let budget = |tokens, tiles| Budget { tokens, tiles };
        let limits = Limits {
            sequences: 64,
            blocks: 64,
            while_decoding: budget(512, 4),
            alone: budget(4096, 16),
            reading: budget(1 << 20, 1 << 10),
            encoder_bytes: 0,
            row_bytes: 1,
        };
        assert_eq!(limits.budget(1, 0), limits.alone);
        for decoding in [1, 8, 63] {
            assert_eq!(limits.budget(1, decoding), limits.while_decoding, "{decoding}");
        }
        assert_eq!(limits.budget(2, 8), limits.while_decoding);
        assert_eq!(limits.budget(13, 48), budget(1024, 8));
        assert_eq!(limits.budget(60, 4), limits.alone);
        // Alone no less is done than beside others.
        let limits = Limits { alone: budget(10, 1), ..limits };
        assert_eq!(limits.budget(60, 4), limits.while_decoding);
    }
}

//! Which rows of a step belong to which sequence.

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the sequence's keys and values are.
    pub slot: usize,
    /// Position of the first row; that many tokens are cached already.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Whether the sequence takes the rotary angles of long sequences ([`super::RopeTable`]); the same at every step.
    pub long: bool,
}

/// The rows of one step: chunks of prompts and single tokens, mixed as needed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Slot and position of each row.
    rows: Vec<(usize, usize)>,
    /// Whether each row takes the angles of long sequences.
    long: Vec<bool>,
    /// Index of each segment's last row.
    last: Vec<u32>,
}

impl Batch {
    /// Lays `segments` out one after another.
    pub fn new(segments: &[Segment]) -> Self {
        let mut batch = Self::default();
        for segment in segments {
            batch.rows.extend((segment.start..segment.start + segment.rows).map(|position| (segment.slot, position)));
            batch.long.resize(batch.rows.len(), segment.long);
            batch.last.push((batch.rows.len() as u32).saturating_sub(1));
        }
        batch
    }

    /// Slot and position of each row.
    pub fn rows(&self) -> &[(usize, usize)] {
        &self.rows
    }

    /// Whether row `row` takes the angles of long sequences.
    pub fn long(&self, row: usize) -> bool {
        self.long[row]
    }

    /// Index of each segment's last row.
    pub fn last_rows(&self) -> &[u32] {
        &self.last
    }
}

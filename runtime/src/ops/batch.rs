//! Which rows of a step belong to which sequence, and in which blocks of the KV cache each sequence is.

use super::kv_cache::DUMMY_BLOCK;

#[cfg(feature = "cuda")]
mod on_gpu;

#[cfg(feature = "cuda")]
use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::{CudaDevice, Result};

#[cfg(feature = "cuda")]
use super::RopeTable;
#[cfg(feature = "cuda")]
pub use on_gpu::{DeviceRows, RUN};

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The blocks of the sequence's keys and values in the order of its tokens, the blocks of these rows among them.
    pub blocks: &'a [u32],
    /// Position of the first row; that many tokens are cached already.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Whether the sequence takes the rotary angles of long sequences ([`super::RopeTable`]); the same at every step.
    pub long: bool,
}

/// One row of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of the sequence in the step, for [`Batch::blocks`].
    pub sequence: usize,
    /// Position of the token in its sequence.
    pub position: usize,
    /// Whether it takes the angles of long sequences.
    pub long: bool,
}

/// The rows of one step: chunks of prompts and single tokens, mixed as needed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    /// The block tables of all sequences, one after another.
    blocks: Vec<u32>,
    /// Where each sequence's table ends.
    ends: Vec<usize>,
    /// Index of each segment's last row.
    last: Vec<u32>,
    /// The same in a GPU's memory, from its first use on.
    #[cfg(feature = "cuda")]
    on_gpu: OnceLock<Arc<DeviceRows>>,
}

impl Batch {
    /// Lays `segments` out one after another.
    pub fn new(segments: &[Segment<'_>]) -> Self {
        let mut batch = Self::default();
        for segment in segments {
            batch.append(segment);
            batch.last.push((batch.rows.len() as u32).saturating_sub(1));
        }
        batch
    }

    /// As [`Batch::new`], with further rows up to `rows` that read and write the dummy block alone: for kernels that
    /// are compiled or captured for fixed numbers of rows. Nothing is to be made of their results.
    pub fn padded(segments: &[Segment<'_>], rows: usize) -> Self {
        let mut batch = Self::new(segments);
        while batch.rows.len() < rows {
            batch.append(&Segment { blocks: &[DUMMY_BLOCK], start: 0, rows: 1, long: false });
        }
        batch
    }

    fn append(&mut self, segment: &Segment<'_>) {
        let (sequence, long) = (self.ends.len(), segment.long);
        let positions = segment.start..segment.start + segment.rows;
        self.rows.extend(positions.map(|position| Row { sequence, position, long }));
        self.blocks.extend_from_slice(segment.blocks);
        self.ends.push(self.blocks.len());
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The block table of a sequence.
    pub fn blocks(&self, sequence: usize) -> &[u32] {
        let start = sequence.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.blocks[start..self.ends[sequence]]
    }

    /// Number of sequences, those that pad among them.
    pub fn sequences(&self) -> usize {
        self.ends.len()
    }

    /// The rows on `device`; a batch has one device and one table of angles for its life.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(&self, rope: &RopeTable, device: &CudaDevice) -> Result<Arc<DeviceRows>> {
        if let Some(rows) = self.on_gpu.get() {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(DeviceRows::new(self, rope, device)?);
        Ok(Arc::clone(self.on_gpu.get_or_init(|| rows)))
    }

    /// `rows` rows of the dummy block that are on a GPU already, where they will be replaced before each step.
    #[cfg(feature = "cuda")]
    pub fn placed(rows: usize, on_gpu: Arc<DeviceRows>) -> Self {
        Self { on_gpu: OnceLock::from(on_gpu), ..Self::padded(&[], rows) }
    }

    /// Index of each segment's last row.
    pub fn last_rows(&self) -> &[u32] {
        &self.last
    }
}

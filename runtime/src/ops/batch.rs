//! Which rows of a step belong to which sequence.

#[cfg(feature = "cuda")]
mod on_gpu;

#[cfg(feature = "cuda")]
use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::{CudaDevice, Result};

#[cfg(feature = "cuda")]
use super::RopeTable;
#[cfg(feature = "cuda")]
pub use on_gpu::DeviceRows;

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
    /// The same in a GPU's memory, from its first use on.
    #[cfg(feature = "cuda")]
    on_gpu: OnceLock<Arc<DeviceRows>>,
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

    /// The rows on `device`; a batch has one device and one table of angles for its life.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(&self, rope: &RopeTable, device: &CudaDevice) -> Result<Arc<DeviceRows>> {
        if let Some(rows) = self.on_gpu.get() {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(DeviceRows::new(self, rope, device)?);
        Ok(Arc::clone(self.on_gpu.get_or_init(|| rows)))
    }

    /// Index of each segment's last row.
    pub fn last_rows(&self) -> &[u32] {
        &self.last
    }
}

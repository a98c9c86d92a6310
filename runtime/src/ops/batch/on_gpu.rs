//! The rows of a step as the kernels of attention and of the KV cache read them: uploaded once for all layers.

use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, Result, bail};

use super::{Batch, Row};
use crate::ops::RopeTable;
use crate::ops::cuda::FLASH_QUERIES;
use crate::ops::kv_cache::{BLOCK_TOKENS, DUMMY_BLOCK, blocks_for};

/// Rows that one block of the kernel for runs takes.
pub const RUN: usize = FLASH_QUERIES;

/// Block tables, rows, and which rows are computed how, one after another in one array.
#[derive(Debug)]
pub struct DeviceRows {
    words: CudaSlice<u32>,
    /// Where the rows, the single rows and the runs begin.
    begins: [usize; 3],
    /// Rows that follow no other of their sequence.
    pub singles: usize,
    /// Up to [`RUN`] rows that follow each other.
    pub runs: usize,
    /// Most cached tokens that a single row sees.
    pub longest: usize,
}

impl DeviceRows {
    /// Uploads the rows of `batch`.
    pub fn new(batch: &Batch, rope: &RopeTable, device: &CudaDevice) -> Result<Self> {
        let (mut words, mut rows) = (Vec::new(), Vec::with_capacity(3 * batch.rows().len()));
        let mut tables = Vec::with_capacity(batch.sequences());
        for sequence in 0..batch.sequences() {
            tables.push(words.len());
            words.extend_from_slice(batch.blocks(sequence));
        }
        let (mut singles, mut runs, mut longest) = (Vec::new(), Vec::new(), 0);
        let mut first = 0;
        let follows = |a: &Row, b: &Row| a.sequence == b.sequence && a.position + 1 == b.position;
        for run in batch.rows().chunk_by(follows) {
            for row in run {
                let angles = rope.row(row.position, row.long);
                rows.extend([tables[row.sequence], row.position, angles].map(|number| number as u32));
            }
            if let [row] = run {
                singles.push(first as u32);
                longest = longest.max(row.position + 1);
            } else {
                let starts = (0..run.len()).step_by(RUN);
                runs.extend(starts.flat_map(|at| [first + at, RUN.min(run.len() - at)]).map(|n| n as u32));
            }
            first += run.len();
        }
        let (single_rows, run_rows) = (singles.len(), runs.len() / 2);
        let mut begins = [0; 3];
        for (begin, part) in begins.iter_mut().zip([rows, singles, runs]) {
            *begin = words.len();
            words.extend(part);
        }
        Ok(Self { words: device.clone_htod(&words)?, begins, singles: single_rows, runs: run_rows, longest })
    }

    /// Room for `count` single rows of sequences of up to `tokens` tokens: all of them rows of the dummy block until
    /// [`Self::replace`] puts others there.
    pub fn room_for(count: usize, tokens: usize, device: &CudaDevice) -> Result<Self> {
        let tables = count * blocks_for(tokens);
        let mut words = vec![DUMMY_BLOCK; tables + 3 * count];
        words.extend(0..count as u32);
        let begins = [tables, tables + 3 * count, tables + 4 * count];
        Ok(Self { words: device.clone_htod(&words)?, begins, singles: count, runs: 0, longest: tokens })
    }

    /// Puts the rows of `batch`, as many and as long as there is room for, in the place of those that are there.
    pub fn replace(&mut self, batch: &Batch, rope: &RopeTable, device: &CudaDevice) -> Result<()> {
        let stride = self.begins[0] / self.singles.max(1);
        let mut words = vec![DUMMY_BLOCK; self.begins[0]];
        for (n, row) in batch.rows().iter().enumerate() {
            // A table has room for the whole answer, of which the later blocks are not needed yet.
            let blocks = batch.blocks(row.sequence);
            let blocks = &blocks[..blocks.len().min(stride)];
            if n >= self.singles || row.position >= stride * BLOCK_TOKENS {
                bail!("row {n} at position {} does not fit a step of {} rows", row.position, self.singles)
            }
            words[n * stride..][..blocks.len()].copy_from_slice(blocks);
        }
        for (n, row) in batch.rows().iter().enumerate() {
            words.extend([n * stride, row.position, rope.row(row.position, row.long)].map(|number| number as u32));
        }
        device.memcpy_htod(&words, &mut self.words.slice_mut(..words.len()))
    }

    /// The block tables of all sequences.
    pub fn tables(&self) -> CudaView<'_, u32> {
        self.words.slice(..self.begins[0])
    }

    /// Of each row: where its table begins, its position, its row of the angles.
    pub fn rows(&self) -> CudaView<'_, u32> {
        self.words.slice(self.begins[0]..self.begins[1])
    }

    /// The indices of single rows.
    pub fn singles(&self) -> CudaView<'_, u32> {
        self.words.slice(self.begins[1]..self.begins[2])
    }

    /// First row and number of rows of each run.
    pub fn runs(&self) -> CudaView<'_, u32> {
        self.words.slice(self.begins[2]..)
    }
}

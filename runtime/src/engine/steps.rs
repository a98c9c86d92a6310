//! The steps of sequences through a decoder with its KV cache: pieces of prompts, or one more token of each.
//! What the engine runs, and what a trace records.

#[cfg(feature = "cuda")]
use std::cell::RefCell;

use candle_core::{Result, Tensor, bail};
#[cfg(feature = "cuda")]
use vlm_catalog::footprint::GPU_PREFILL_TOKENS;

#[cfg(feature = "cuda")]
use super::ahead::Ahead;
#[cfg(feature = "cuda")]
use super::graphs::Graphs;
use crate::models::VisionLanguage;
use crate::ops::{Batch, Choice, KvCache, Segment};
#[cfg(feature = "cuda")]
use crate::ops::{blocks_for, choose_there, nth_table};

/// Prompt tokens read in one step while nothing else runs.
pub const CHUNK: usize = 512;
/// How far apart the lengths of texts are that are read before any is asked for.
#[cfg(feature = "cuda")]
const LENGTHS: usize = 256;

/// Model and KV cache.
pub struct Steps {
    model: VisionLanguage,
    cache: KvCache,
    /// Blocks of the cache, the dummy block among them.
    #[cfg(feature = "cuda")]
    blocks: usize,
    /// Those of single rows, on a GPU.
    #[cfg(feature = "cuda")]
    graphs: RefCell<Graphs>,
    /// Those that were begun.
    #[cfg(feature = "cuda")]
    ahead: RefCell<Ahead>,
}

impl Steps {
    /// A model with a cache of `blocks` blocks, the dummy block among them.
    pub fn new(model: VisionLanguage, blocks: usize) -> Result<Self> {
        let cache = model.kv_cache(blocks)?;
        Ok(Self {
            model,
            cache,
            #[cfg(feature = "cuda")]
            blocks,
            #[cfg(feature = "cuda")]
            graphs: RefCell::default(),
            #[cfg(feature = "cuda")]
            ahead: RefCell::default(),
        })
    }

    /// Makes the steps of up to `rows` sequences of up to `tokens` tokens ready, where that takes time.
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn prepare(&self, rows: usize, tokens: usize) -> Result<()> {
        #[cfg(feature = "cuda")]
        if self.model.device().is_cuda() {
            self.read_lengths(rows, tokens)?;
            return self.graphs.borrow_mut().prepare(self.model.language(), &self.cache, rows, tokens);
        }
        let _ = (rows, tokens);
        Ok(())
    }

    /// Reads texts of many lengths by one layer, as far as the cache has room beside its dummy block: kernels are chosen
    /// by the number of rows, and loaded on their first use.
    #[cfg(feature = "cuda")]
    fn read_lengths(&self, rows: usize, tokens: usize) -> Result<()> {
        let fit = rows.min((self.blocks.saturating_sub(1) / blocks_for(tokens).max(1)).max(1));
        let most = GPU_PREFILL_TOKENS as usize;
        let tables = (0..fit.min(most.div_ceil(tokens.max(1)))).map(|n| nth_table(n, tokens)).collect::<Vec<_>>();
        let language = self.model.language();
        let long = language.is_long(tokens);
        for length in [64, 128].into_iter().chain((LENGTHS..=most).step_by(LENGTHS)) {
            let (mut segments, mut left) = (Vec::new(), length);
            for blocks in &tables {
                let rows = left.min(tokens);
                left -= rows;
                segments.extend((rows > 0).then_some(Segment { blocks, start: 0, rows, long }));
            }
            if left > 0 {
                break;
            }
            language.first_layer(&language.embed(&vec![0; length])?, &Batch::new(&segments), &self.cache)?;
        }
        self.model.device().synchronize()
    }

    /// Decode steps so far that were replayed from a recorded graph, and those on a GPU that no graph was for.
    pub fn graphs(&self) -> (u64, u64) {
        #[cfg(feature = "cuda")]
        return self.graphs.borrow().counts();
        #[cfg(not(feature = "cuda"))]
        (0, 0)
    }

    /// The model.
    pub fn model(&self) -> &VisionLanguage {
        &self.model
    }

    /// The model without its cache.
    pub fn into_model(self) -> VisionLanguage {
        self.model
    }

    /// Reads the rows of `segments`, whose embeddings are `embeds` (`[rows, width]`): the hidden states of the rows
    /// `wanted`, `[wanted, width]`.
    pub fn read(&self, embeds: &Tensor, segments: &[Segment<'_>], wanted: &[u32]) -> Result<Tensor> {
        self.model.language().forward_to(embeds, &Batch::new(segments), &self.cache, wanted)
    }

    /// Logits `[rows, vocabulary]` of hidden states `[rows, width]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.model.language().all_logits(hidden)
    }

    /// One more token for each sequence, its segment being one row: logits `[sequences, vocabulary]`.
    pub fn next(&self, rows: &[(Segment<'_>, u32)]) -> Result<Tensor> {
        let (segments, ids): (Vec<Segment<'_>>, Vec<u32>) = rows.iter().copied().unzip();
        #[cfg(feature = "cuda")]
        if self.model.device().is_cuda() {
            return self.replay(&segments, &self.fed(&segments, &ids)?);
        }
        let (batch, language) = (Batch::new(&segments), self.model.language());
        let hidden = language.forward(&language.embed(&ids)?, &batch, &self.cache)?;
        language.logits(&hidden, batch.last_rows())
    }

    /// Begins one more token for each sequence, its segment being one row, and waits for nothing; how the tokens that
    /// follow are chosen say `choices`. Each is fed its token or, if `follows` is given, what follows from that row of
    /// the step that was begun last. Tokens are taken with [`Self::begun`], in the order of the steps.
    ///
    /// # Errors
    /// What [`Self::next`] refuses, and another device than a GPU.
    pub fn begin(&self, rows: &[(Segment<'_>, u32)], choices: &[Choice], follows: Option<&[usize]>) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = self.model.device() {
            let (segments, ids): (Vec<Segment<'_>>, Vec<u32>) = rows.iter().copied().unzip();
            let fed = match follows {
                Some(rows) => self.ahead.borrow().follow(rows, self.model.config().text.vocab_size)?,
                None => self.fed(&segments, &ids)?,
            };
            let chosen = choose_there(&self.replay(&segments, &fed)?, choices)?;
            return self.ahead.borrow_mut().send(chosen, device);
        }
        bail!("{} rows with {} choices are not begun here, after {follows:?}", rows.len(), choices.len())
    }

    /// Waits for the tokens of the first step that was begun and not taken; `None` for a row with a number that is not
    /// finite.
    ///
    /// # Errors
    /// Where there is none, and what went wrong on the device.
    pub fn begun(&self) -> Result<Vec<Option<u32>>> {
        #[cfg(feature = "cuda")]
        if self.model.device().is_cuda() {
            return self.ahead.borrow_mut().next();
        }
        bail!("no step has been begun")
    }

    /// `ids` on the GPU, once they and their places are known to be right.
    #[cfg(feature = "cuda")]
    fn fed(&self, segments: &[Segment<'_>], ids: &[u32]) -> Result<Tensor> {
        self.model.language().check(ids, &Batch::new(segments), &self.cache)?;
        Tensor::new(ids, self.model.device())
    }

    #[cfg(feature = "cuda")]
    fn replay(&self, segments: &[Segment<'_>], ids: &Tensor) -> Result<Tensor> {
        self.graphs.borrow_mut().next(self.model.language(), &self.cache, segments, ids)
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::ops::room_for;
    use crate::precision::Precision;

    /// What only a GPU asks for runs everywhere.
    #[test]
    fn lengths_are_read_with_the_angles_of_long_sequences_where_there_are_such() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/internvl2_phi3_long_chat");
        let checkpoint = Checkpoint::open(&dir).unwrap();
        // Up to 32 tokens a sequence is short.
        for (sequences, tokens) in [(9, 30), (2, 200), (1, 20)] {
            let model = VisionLanguage::load(&checkpoint, tokens, Precision::F32).unwrap();
            assert_eq!(model.language().is_long(tokens), tokens > 32);
            let steps = Steps::new(model, room_for(sequences, tokens)).unwrap();
            steps.read_lengths(sequences, tokens).unwrap();
        }
    }
}

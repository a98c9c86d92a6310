//! The steps of sequences through a decoder with its KV cache: pieces of prompts, or one more token of each.
//! What the engine runs, and what a trace records.

#[cfg(feature = "cuda")]
use std::cell::RefCell;

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::graphs::Graphs;
use crate::models::VisionLanguage;
use crate::ops::{Batch, KvCache, Segment};

/// Prompt tokens read in one step while nothing else runs.
pub const CHUNK: usize = 512;

/// Model and KV cache.
pub struct Steps {
    model: VisionLanguage,
    cache: KvCache,
    /// Those of single rows, on a GPU.
    #[cfg(feature = "cuda")]
    graphs: RefCell<Graphs>,
}

impl Steps {
    /// A model with a cache of `blocks` blocks, the dummy block among them.
    pub fn new(model: VisionLanguage, blocks: usize) -> Result<Self> {
        let cache = model.kv_cache(blocks)?;
        Ok(Self {
            model,
            cache,
            #[cfg(feature = "cuda")]
            graphs: RefCell::default(),
        })
    }

    /// Makes the steps of up to `rows` sequences of up to `tokens` tokens ready, where that takes time.
    ///
    /// # Errors
    /// What the device has no room for.
    pub fn prepare(&self, rows: usize, tokens: usize) -> Result<()> {
        #[cfg(feature = "cuda")]
        if self.model.device().is_cuda() {
            return self.graphs.borrow_mut().prepare(self.model.language(), &self.cache, rows, tokens);
        }
        let _ = (rows, tokens);
        Ok(())
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
            let mut graphs = self.graphs.borrow_mut();
            return graphs.next(self.model.language(), &self.cache, &segments, &ids);
        }
        let (batch, language) = (Batch::new(&segments), self.model.language());
        let hidden = language.forward(&language.embed(&ids)?, &batch, &self.cache)?;
        language.logits(&hidden, batch.last_rows())
    }
}

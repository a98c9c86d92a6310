//! One decoder for the Llama kind: embeddings in, hidden states out, logits of chosen rows.

#[cfg(feature = "cuda")]
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{DType, Result, Tensor, bail};
use vlm_catalog::architecture::TextConfig;
use vlm_catalog::quantization::LinearRole;

use super::{Loading, start};
use crate::checkpoint::{CheckpointError, DecoderLayer, DecoderTensors};
use crate::ops::{Batch, KvCache, Linear, RmsNorm, RopeTable, gather, gather_at, store_and_attend};
#[cfg(feature = "cuda")]
use crate::ops::{Decoder, DeviceRows, Parts};

/// Rows up to which all layers with quantised weights are one kernel: on an H200 it is ahead of one kernel after the other for a
/// single sequence alone.
#[cfg(feature = "cuda")]
const AT_ONCE: usize = 1;

/// The decoder.
pub struct Language {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    rope: RopeTable,
    /// Tokens up to which a sequence takes the rotary angles of short ones.
    short: usize,
    /// All layers at once, with each cache so far, where weights are quantised.
    #[cfg(feature = "cuda")]
    at_once: Mutex<Vec<Arc<Decoder>>>,
}

struct Layer {
    input_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    post_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

impl Language {
    /// Loads the decoder for sequences of up to `positions` tokens. A head that is not stored is the embedding.
    pub fn load(
        tensors: &DecoderTensors<'_>,
        positions: usize,
        loading: &mut Loading,
    ) -> std::result::Result<Self, CheckpointError> {
        let config = tensors.config();
        let embedding = loading.table(&tensors.embedding())?;
        let head = match tensors.head() {
            Some(head) => loading.quantised(&head, LinearRole::Head)?,
            None => loading.tied(&tensors.embedding(), &embedding)?,
        };
        let layers = (0..config.layers).map(|n| Layer::load(&tensors.layer(n), config, loading));
        let layers = layers.collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            layers,
            #[cfg(feature = "cuda")]
            at_once: Mutex::default(),
            norm: RmsNorm::new(loading.vector(&tensors.norm()?)?, config.rms_norm_eps),
            head,
            embedding,
            rope: RopeTable::of(config, positions, loading.device()).map_err(|e| start(&e))?,
            short: config.long_rope.as_ref().map_or(usize::MAX, |rope| rope.original_positions),
        })
    }

    /// Tokens up to which a sequence takes the rotary angles of short ones, where there are two kinds.
    pub fn short_tokens(&self) -> usize {
        self.short
    }

    /// Whether a sequence that will have up to `tokens` tokens takes the rotary angles of long ones. To be
    /// decided once, before its first step: cached keys keep their angles.
    pub fn is_long(&self, tokens: usize) -> bool {
        tokens > self.short_tokens()
    }

    /// Embeddings `[ids, width]` in f32. Ids outside of the vocabulary are an error.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        gather(&self.embedding, ids)
    }

    /// Runs `[rows, width]` through the layers, extending the caches of the rows' sequences.
    pub fn forward(&self, embeds: &Tensor, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        // The layers add to it where it is.
        let mut x = embeds.force_contiguous()?;
        #[cfg(feature = "cuda")]
        if self.forward_at_once(&x, batch, cache)? {
            return Ok(x);
        }
        for (n, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, n, &self.rope, batch, cache, None)?;
        }
        Ok(x)
    }

    /// Runs `x` through all layers, where it is, if these are rows for which a GPU does that in one kernel.
    #[cfg(feature = "cuda")]
    fn forward_at_once(&self, x: &Tensor, batch: &Batch, cache: &KvCache) -> Result<bool> {
        if x.dim(0)? > AT_ONCE || cache.device().is_cpu() {
            return Ok(false);
        }
        let layers: Vec<_> = self.layers.iter().map(Layer::parts).collect();
        let mut known = self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        for decoder in &*known {
            if decoder.is_of(&layers, cache) {
                return decoder.forward(x, batch, &self.rope, cache);
            }
        }
        let Some(decoder) = Decoder::new(&layers, cache)? else { return Ok(false) };
        let decoder = Arc::new(decoder);
        known.push(Arc::clone(&decoder));
        drop(known);
        decoder.forward(x, batch, &self.rope, cache)
    }

    /// As [`Self::forward`], the hidden states of the rows `wanted` alone. Of the others the last layer needs keys and
    /// values and nothing else.
    pub fn forward_to(&self, embeds: &Tensor, batch: &Batch, cache: &KvCache, wanted: &[u32]) -> Result<Tensor> {
        let mut x = embeds.force_contiguous()?;
        for (n, layer) in self.layers.iter().enumerate() {
            let wanted = (n + 1 == self.layers.len()).then_some(wanted);
            x = layer.forward(x, n, &self.rope, batch, cache, wanted)?;
        }
        Ok(x)
    }

    /// Runs `[rows, width]` through the first layer alone and gives the logits of the last of them: every kernel that so
    /// many rows need, in little time.
    #[cfg(feature = "cuda")]
    pub fn first_layer(&self, embeds: &Tensor, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        let (mut x, last) = (embeds.force_contiguous()?, batch.last_rows());
        for wanted in [None, Some(last)] {
            let Some(layer) = self.layers.first() else { bail!("a model has layers") };
            x = layer.forward(x, 0, &self.rope, batch, cache, wanted)?;
        }
        self.all_logits(&x)
    }

    /// As [`Self::embed`], of ids that are on the device and known to be of the vocabulary: `[ids]` in u32.
    pub fn embed_at(&self, ids: &Tensor) -> Result<Tensor> {
        gather_at(&self.embedding, ids)
    }

    /// Logits `[rows, vocabulary]` of all hidden states.
    pub fn all_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.norm.forward_as(hidden, self.head.takes())?)
    }

    /// Numbers of a row of logits.
    #[cfg(feature = "cuda")]
    pub fn vocabulary(&self) -> Result<usize> {
        self.head.outputs()
    }

    /// Refuses ids and rows that [`Self::embed`] and [`Self::forward`] would.
    pub fn check(&self, ids: &[u32], batch: &Batch, cache: &KvCache) -> Result<()> {
        let vocabulary = self.embedding.dim(0)?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            bail!("the token {id} is beyond the vocabulary of {vocabulary}")
        }
        self.rope.check(batch)?;
        cache.check(batch)
    }

    /// Puts the rows of `batch` in the place of those of a recorded step.
    #[cfg(feature = "cuda")]
    pub fn place(&self, batch: &Batch, rows: &mut DeviceRows) -> Result<()> {
        let Device::Cuda(device) = self.embedding.device() else { bail!("the model is not on a GPU") };
        rows.replace(batch, &self.rope, device)
    }

    /// Logits `[rows, vocabulary]` of the hidden states of `rows`.
    pub fn logits(&self, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        self.all_logits(&gather(hidden, rows)?)
    }
}

impl Layer {
    fn load(
        tensors: &DecoderLayer<'_>,
        config: &TextConfig,
        loading: &mut Loading,
    ) -> std::result::Result<Self, CheckpointError> {
        Ok(Self {
            input_norm: RmsNorm::new(loading.vector(&tensors.input_norm()?)?, config.rms_norm_eps),
            qkv: loading.quantised(&tensors.qkv(), LinearRole::Decoder)?,
            out: loading.quantised(&tensors.out(), LinearRole::Decoder)?,
            post_norm: RmsNorm::new(loading.vector(&tensors.post_norm()?)?, config.rms_norm_eps),
            gate_up: loading.quantised(&tensors.gate_up(), LinearRole::Decoder)?,
            down: loading.quantised(&tensors.down(), LinearRole::Decoder)?,
        })
    }

    #[cfg(feature = "cuda")]
    fn parts(&self) -> Parts<'_> {
        Parts {
            input_norm: &self.input_norm,
            qkv: &self.qkv,
            out: &self.out,
            post_norm: &self.post_norm,
            gate_up: &self.gate_up,
            down: &self.down,
        }
    }

    /// Of the rows `wanted`, if they are said, and else of all.
    fn forward(
        &self,
        x: Tensor,
        n: usize,
        rope: &RopeTable,
        batch: &Batch,
        cache: &KvCache,
        wanted: Option<&[u32]>,
    ) -> Result<Tensor> {
        // Few rows may be computed in another way than many, which is the same to products of 16 bits alone.
        let early = self.out.takes() != DType::F32;
        let mixed = {
            let qkv = self.qkv.forward(&self.input_norm.forward_as(&x, self.qkv.takes())?)?;
            if wanted == Some(&[]) {
                cache.store(n, &qkv, rope, batch)?;
                return gather(&x, &[]);
            }
            store_and_attend(&qkv, cache, n, rope, batch, self.out.takes())?
        };
        let (x, mixed) = match wanted {
            Some(wanted) if early => (gather(&x, wanted)?, gather(&mixed, wanted)?),
            _ => (x, mixed),
        };
        let x = self.out.forward_added(&mixed, x)?;
        let gated = self.gate_up.forward_gated(&self.post_norm.forward_as(&x, self.gate_up.takes())?)?;
        let x = self.down.forward_added(&gated, x)?;
        match wanted {
            Some(wanted) if !early => gather(&x, wanted),
            _ => Ok(x),
        }
    }
}

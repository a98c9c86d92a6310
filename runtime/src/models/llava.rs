//! LLaVA-1.5 (Liu et al. 2023): visual rows stand where the prompt has image tokens.

use candle_core::{Device, Result, Tensor, bail};
use vlm_catalog::architecture::ModelConfig;

use super::{ClipTower, Language, Projector};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::image::PreparedImage;
use crate::ops::{Batch, KvCache, Segment};

/// Tower, projector and decoder.
pub struct Llava {
    config: ModelConfig,
    vision: ClipTower,
    projector: Projector,
    language: Language,
}

impl Llava {
    /// Loads all weights; `positions` is the longest sequence that will be asked for.
    pub fn load(checkpoint: &Checkpoint, positions: usize) -> std::result::Result<Self, CheckpointError> {
        let (config, weights, layout) = (checkpoint.config(), checkpoint.weights(), checkpoint.layout());
        Ok(Self {
            vision: ClipTower::load(&weights.at(&layout.vision), &config.vision)?,
            projector: Projector::load(&weights.at(&layout.projector), config)?,
            language: Language::load(weights, &layout.text, &layout.head, &config.text, positions)?,
            config: config.clone(),
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The decoder.
    pub fn language(&self) -> &Language {
        &self.language
    }

    /// A KV cache of `slots` sequences of `tokens` tokens.
    pub fn kv_cache(&self, slots: usize, tokens: usize) -> Result<KvCache> {
        let text = &self.config.text;
        KvCache::new(text.layers, slots, text.kv_heads, tokens, text.head_dim, &Device::Cpu)
    }

    /// The tower's features of normalised pixels: `[tiles, rows, vision width]`.
    pub fn vision_features(&self, image: &PreparedImage) -> Result<Tensor> {
        let shape = (image.tiles, 3, image.height, image.width);
        self.vision.forward(&Tensor::from_slice(&image.pixels, shape, &Device::Cpu)?)
    }

    /// Rows of the decoder's width: `[tokens, width]`.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        self.projector.forward(&features.flatten(0, 1)?)
    }

    /// Embeddings of a prompt: text rows from the vocabulary, image tokens from `images` in order.
    pub fn embed(&self, ids: &[u32], images: &[Tensor]) -> Result<Tensor> {
        let image_token = self.config.image_token_id.unwrap_or_default();
        let places = ids.iter().filter(|id| **id == image_token).count();
        let rows = images.iter().map(|image| image.dim(0)).sum::<Result<usize>>()?;
        if places != rows {
            bail!("the prompt has {places} image tokens, but its images have {rows} rows")
        }
        if images.is_empty() {
            return self.language.embed(ids);
        }
        let visual = Tensor::cat(images, 0)?;
        let (mut parts, mut used) = (Vec::new(), 0);
        for run in ids.chunk_by(|a, b| (*a == image_token) == (*b == image_token)) {
            if run.first() == Some(&image_token) {
                parts.push(visual.narrow(0, used, run.len())?);
                used += run.len();
            } else {
                parts.push(self.language.embed(run)?);
            }
        }
        Tensor::cat(&parts, 0)
    }

    /// Runs a blank picture and one token through everything. Whether all numbers were finite.
    pub fn warm_up(&self) -> Result<bool> {
        let side = self.config.vision.image_size;
        let blank = PreparedImage {
            tiles: 1,
            height: side,
            width: side,
            pixels: vec![0.0; 3 * side * side],
            tokens: 0,
            kept: None,
        };
        let visual = self.project(&self.vision_features(&blank)?)?;
        let batch = Batch::new(&[Segment { slot: 0, start: 0, rows: 1 }]);
        let hidden = self.language.forward(&self.language.embed(&[0])?, &batch, &self.kv_cache(1, 1)?)?;
        let logits = self.language.logits(&hidden, batch.last_rows())?;
        let finite = |tensor: &Tensor| -> Result<bool> {
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()))
        };
        Ok(finite(&visual)? && finite(&logits)?)
    }
}

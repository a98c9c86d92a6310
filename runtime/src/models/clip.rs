//! The CLIP vision tower (Radford et al. 2021) up to the layer whose output is the features.

use candle_core::{D, Result, Tensor};
use vlm_catalog::architecture::{Activation, VisionConfig};

use super::{layer_norm, linear, stack};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::ops::{LayerNorm, Linear, activate};

/// Patches in, features out.
pub struct ClipTower {
    config: VisionConfig,
    patches: Linear,
    class: Tensor,
    positions: Tensor,
    pre_norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipTower {
    /// Loads the stem and the layers that are used.
    pub fn load(at: &Tensors<'_>, config: &VisionConfig) -> std::result::Result<Self, CheckpointError> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let start = |e: candle_core::Error| CheckpointError::Start(e.to_string());
        let embeddings = at.at("embeddings");
        let kernel = embeddings.get("patch_embedding.weight", &[width, 3, patch, patch])?;
        let rows = config.grid() * config.grid() + 1;
        let layers = at.at("encoder").at("layers");
        Ok(Self {
            patches: Linear::new(kernel.reshape((width, 3 * patch * patch)).map_err(start)?, None),
            class: embeddings.get("class_embedding", &[width])?.reshape((1, 1, width)).map_err(start)?,
            positions: embeddings.get("position_embedding.weight", &[rows, width])?,
            pre_norm: layer_norm(&at.at("pre_layrnorm"), width, config.layer_norm_eps)?,
            layers: (0..config.layers_used)
                .map(|n| Layer::load(&layers.at(n), config))
                .collect::<std::result::Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// Pixels `[tiles, 3, side, side]` to features `[tiles, rows, width]`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (tiles, _, _, _) = pixels.dims4()?;
        let (grid, patch, width) = (self.config.grid(), self.config.patch_size, self.config.hidden_size);
        let patches = pixels
            .reshape(&[tiles, 3, grid, patch, grid, patch][..])?
            .permute(&[0, 2, 4, 1, 3, 5][..])?
            .reshape((tiles * grid * grid, 3 * patch * patch))?;
        let patches = self.patches.forward(&patches)?.reshape((tiles, grid * grid, width))?;
        let class = self.class.broadcast_as((tiles, 1, width))?;
        let x = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.positions)?;
        let mut x = self.pre_norm.forward(&x)?;
        for layer in &self.layers {
            x = layer.forward(&x, self.config.heads, self.config.activation)?;
        }
        if self.config.drop_class_token { x.narrow(1, 1, grid * grid)?.contiguous() } else { Ok(x) }
    }
}

impl Layer {
    fn load(at: &Tensors<'_>, config: &VisionConfig) -> std::result::Result<Self, CheckpointError> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let attention = at.at("self_attn");
        let projection = |name: &str| linear(&attention.at(name), width, width, true);
        Ok(Self {
            norm1: layer_norm(&at.at("layer_norm1"), width, eps)?,
            qkv: stack(&[projection("q_proj")?, projection("k_proj")?, projection("v_proj")?])?,
            out: projection("out_proj")?,
            norm2: layer_norm(&at.at("layer_norm2"), width, eps)?,
            fc1: linear(&at.at("mlp").at("fc1"), width, config.intermediate_size, true)?,
            fc2: linear(&at.at("mlp").at("fc2"), config.intermediate_size, width, true)?,
        })
    }

    fn forward(&self, x: &Tensor, heads: usize, activation: Activation) -> Result<Tensor> {
        let (tiles, rows, width) = x.dims3()?;
        let qkv = self.qkv.forward(&self.norm1.forward(x)?.reshape((tiles * rows, width))?)?;
        let mixed = attend(&qkv, tiles, heads)?;
        let x = (x.reshape((tiles * rows, width))? + self.out.forward(&mixed)?)?;
        let inner = activate(&self.fc1.forward(&self.norm2.forward(&x)?)?, activation)?;
        (x + self.fc2.forward(&inner)?)?.reshape((tiles, rows, width))
    }
}

/// Attention without a mask inside each tile: `[tiles · rows, 3 · width]` to `[tiles · rows, width]`.
fn attend(qkv: &Tensor, tiles: usize, heads: usize) -> Result<Tensor> {
    let (all, width3) = qkv.dims2()?;
    let (rows, head_dim) = (all / tiles, width3 / 3 / heads);
    let qkv = qkv.reshape((tiles, rows, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
    let scores = (q.matmul(&k.transpose(D::Minus1, D::Minus2)?)? * (head_dim as f64).sqrt().recip())?;
    let mixed = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?;
    mixed.transpose(1, 2)?.reshape((all, heads * head_dim))
}

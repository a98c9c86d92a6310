//! The layers of `InternViT` (Chen et al. 2023): layer or root-mean-square norms, norms of queries and keys
//! over all heads in the large one, and a learned scale on everything that a layer adds.

use candle_core::{Result, Tensor};
use vlm_catalog::architecture::{Activation, Tower, VisionConfig};

use super::vision::thirds;
use super::{Loading, Norm};
use crate::checkpoint::{CheckpointError, TowerLayer, TowerTensors};
use crate::ops::{Linear, RmsNorm, activate, add_scaled, tile_attention};

/// The layers.
pub struct InternVit {
    layers: Vec<Layer>,
    heads: usize,
    activation: Activation,
}

struct Layer {
    norm1: Norm,
    qkv: Linear,
    qk_norms: Option<[RmsNorm; 2]>,
    out: Linear,
    scale1: Tensor,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    scale2: Tensor,
}

impl InternVit {
    /// Loads the layers that are used.
    pub fn load(tensors: &TowerTensors<'_>, loading: &mut Loading) -> std::result::Result<Self, CheckpointError> {
        let config = tensors.config();
        let layers = (0..config.layers_used).map(|n| Layer::load(&tensors.layer(n), config, loading));
        Ok(Self {
            layers: layers.collect::<std::result::Result<_, _>>()?,
            heads: config.heads,
            activation: config.activation,
        })
    }

    /// The stem's rows `[tiles, rows, width]` to the same, by the first `layers` layers.
    pub fn forward(&self, mut x: Tensor, layers: usize) -> Result<Tensor> {
        let (tiles, rows, width) = x.dims3()?;
        x = x.reshape((tiles * rows, width))?;
        for layer in self.layers.iter().take(layers) {
            x = layer.forward(x, tiles, self.heads, self.activation)?;
        }
        x.reshape((tiles, rows, width))
    }
}

impl Layer {
    fn load(
        tensors: &TowerLayer<'_>,
        config: &VisionConfig,
        loading: &mut Loading,
    ) -> std::result::Result<Self, CheckpointError> {
        let eps = config.layer_norm_eps;
        let [norm1, norm2] = tensors.norms()?;
        let [scale1, scale2] = tensors.scales()?;
        let qk_norms = if matches!(config.tower, Tower::InternVit { qk_norm: true, .. }) {
            let [of_q, of_k] = tensors.qk_norms()?;
            Some([RmsNorm::new(loading.vector(&of_q)?, eps), RmsNorm::new(loading.vector(&of_k)?, eps)])
        } else {
            None
        };
        Ok(Self {
            norm1: Norm::new(loading.norm(&norm1)?, eps),
            qkv: loading.linear(&tensors.qkv())?,
            qk_norms,
            out: loading.linear(&tensors.out())?,
            scale1: loading.vector(&scale1)?,
            norm2: Norm::new(loading.norm(&norm2)?, eps),
            fc1: loading.linear(&tensors.fc1())?,
            fc2: loading.linear(&tensors.fc2())?,
            scale2: loading.vector(&scale2)?,
        })
    }

    fn forward(&self, mut x: Tensor, tiles: usize, heads: usize, activation: Activation) -> Result<Tensor> {
        // What is not needed any more is gone before the next is computed.
        x = add_scaled(&x, &self.mixed(&x, tiles, heads)?, &self.scale1)?;
        let inner = activate(&self.fc1.forward_rounded(&self.norm2.forward_for(&x, &self.fc1)?)?, activation)?;
        add_scaled(&x, &self.fc2.forward_rounded(&inner)?, &self.scale2)
    }

    /// What attention adds, before its scale.
    fn mixed(&self, x: &Tensor, tiles: usize, heads: usize) -> Result<Tensor> {
        let (normed, takes) = (self.norm1.forward_for(x, &self.qkv)?, self.out.takes());
        let Some([of_q, of_k]) = &self.qk_norms else {
            let [q, k, v] = thirds(&self.qkv.forward_rounded(&normed)?)?;
            return self.out.forward_rounded(&tile_attention([&q, &k, &v], tiles, heads, takes)?);
        };
        let [q, k, v] = thirds(&self.qkv.forward(&normed)?)?;
        let (q, k) = (of_q.forward(&q)?, of_k.forward(&k)?);
        self.out.forward_rounded(&tile_attention([&q, &k, &v], tiles, heads, takes)?)
    }
}

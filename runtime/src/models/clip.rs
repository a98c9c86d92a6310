//! The layers of the CLIP vision tower (Radford et al. 2021) up to the one whose output is the features.

use candle_core::{Result, Tensor};
use vlm_catalog::architecture::{Activation, VisionConfig};

use super::vision::thirds;
use super::{Loading, Norm};
use crate::checkpoint::{CheckpointError, TowerLayer, TowerTensors};
use crate::ops::{Linear, activate, tile_attention};

/// The norm behind the stem, and the layers.
pub struct ClipTower {
    pre_norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    activation: Activation,
}

struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipTower {
    /// Loads the layers that are used.
    pub fn load(tensors: &TowerTensors<'_>, loading: &mut Loading) -> std::result::Result<Self, CheckpointError> {
        let config = tensors.config();
        let pre_norm = Norm::new(loading.norm(&tensors.pre_norm()?)?, config.layer_norm_eps);
        let layers = (0..config.layers_used).map(|n| Layer::load(&tensors.layer(n), config, loading));
        Ok(Self {
            pre_norm,
            layers: layers.collect::<std::result::Result<_, _>>()?,
            heads: config.heads,
            activation: config.activation,
        })
    }

    /// The stem's rows `[tiles, rows, width]` to the same, by the first `layers` layers.
    pub fn forward(&self, mut x: Tensor, layers: usize) -> Result<Tensor> {
        let (tiles, rows, width) = x.dims3()?;
        x = self.pre_norm.forward(&x.reshape((tiles * rows, width))?)?;
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
        let [norm1, norm2] = tensors.norms()?;
        Ok(Self {
            norm1: Norm::new(loading.norm(&norm1)?, config.layer_norm_eps),
            qkv: loading.linear(&tensors.qkv())?,
            out: loading.linear(&tensors.out())?,
            norm2: Norm::new(loading.norm(&norm2)?, config.layer_norm_eps),
            fc1: loading.linear(&tensors.fc1())?,
            fc2: loading.linear(&tensors.fc2())?,
        })
    }

    fn forward(&self, x: Tensor, tiles: usize, heads: usize, activation: Activation) -> Result<Tensor> {
        let x = self.out.forward_added(&self.mixed(&x, tiles, heads)?, x)?;
        let inner = activate(&self.fc1.forward_rounded(&self.norm2.forward_for(&x, &self.fc1)?)?, activation)?;
        self.fc2.forward_added(&inner, x)
    }

    /// What attention gives to the layer behind it.
    fn mixed(&self, x: &Tensor, tiles: usize, heads: usize) -> Result<Tensor> {
        let [q, k, v] = thirds(&self.qkv.forward_rounded(&self.norm1.forward_for(x, &self.qkv)?)?)?;
        tile_attention([&q, &k, &v], tiles, heads, self.out.takes())
    }
}

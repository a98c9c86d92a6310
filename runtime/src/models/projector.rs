//! From the tower's features to the decoder's width.

use candle_core::{Result, Tensor};
use vlm_catalog::architecture::Activation;

use super::{Loading, Norm};
use crate::checkpoint::{CheckpointError, ProjectorTensors};
use crate::ops::{Linear, activate};

/// Epsilon of the norm; no configuration has it.
const EPS: f64 = 1e-5;

/// Norm (`InternVL`), linear, activation, linear.
pub struct Projector {
    norm: Option<Norm>,
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Projector {
    /// Loads both layers, and the norm where there is one.
    pub fn load(tensors: &ProjectorTensors<'_>, loading: &mut Loading) -> std::result::Result<Self, CheckpointError> {
        Ok(Self {
            norm: tensors.norm()?.map(|norm| loading.norm(&norm)).transpose()?.map(|norm| Norm::new(norm, EPS)),
            first: loading.linear(&tensors.first())?,
            second: loading.linear(&tensors.second())?,
            activation: tensors.config().projector.activation,
        })
    }

    /// `[rows, joined vision width]` to `[rows, text width]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let first = match &self.norm {
            Some(norm) => self.first.forward_rounded(&norm.forward_for(features, &self.first)?)?,
            None => self.first.forward_rounded(features)?,
        };
        self.second.forward(&activate(&first, self.activation)?)
    }
}

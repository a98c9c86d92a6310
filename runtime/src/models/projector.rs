//! From the tower's features to the decoder's width.

use candle_core::{Result, Tensor};
use vlm_catalog::architecture::{Activation, ModelConfig};

use super::linear;
use crate::checkpoint::{CheckpointError, Tensors};
use crate::ops::{Linear, activate};

/// Linear, activation, linear.
pub struct Projector {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Projector {
    /// Loads `linear_1` and `linear_2`.
    pub fn load(at: &Tensors<'_>, config: &ModelConfig) -> std::result::Result<Self, CheckpointError> {
        let (input, output) = (config.vision.hidden_size, config.text.hidden_size);
        let bias = config.projector.bias;
        Ok(Self {
            first: linear(&at.at("linear_1"), input, output, bias)?,
            second: linear(&at.at("linear_2"), output, output, bias)?,
            activation: config.projector.activation,
        })
    }

    /// `[rows, vision width]` to `[rows, text width]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.second.forward(&activate(&self.first.forward(features)?, self.activation)?)
    }
}

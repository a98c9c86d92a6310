//! The projector's tensors.

use vlm_catalog::architecture::ModelConfig;

use super::super::{CheckpointError, Tensors, Weights};
use super::{LinearTensors, NormTensors};

/// What the projector's layers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProjectorNames {
    prefix: &'static str,
    norm: &'static str,
    linear: [&'static str; 2],
}

impl ProjectorNames {
    /// Names of the transformers library.
    pub const fn named(prefix: &'static str) -> Self {
        Self { prefix, norm: "layer_norm", linear: ["linear_1", "linear_2"] }
    }

    /// Places in a sequence of modules, the norm the first of them.
    pub const fn sequence(prefix: &'static str, linear: [&'static str; 2]) -> Self {
        Self { prefix, norm: "0", linear }
    }
}

/// Tensors of a projector.
pub struct ProjectorTensors<'a> {
    at: Tensors<'a>,
    names: ProjectorNames,
    config: &'a ModelConfig,
}

impl<'a> ProjectorTensors<'a> {
    pub(super) fn new(weights: &'a Weights, names: ProjectorNames, config: &'a ModelConfig) -> Self {
        Self { at: weights.at(names.prefix), names, config }
    }

    /// What the model is.
    pub fn config(&self) -> &'a ModelConfig {
        self.config
    }

    /// The norm before the layers; `None` when there is none.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn norm(&self) -> Result<Option<NormTensors>, CheckpointError> {
        let read = || NormTensors::read(&self.at.at(self.names.norm), self.input(), true);
        self.config.projector.norm.then(read).transpose()
    }

    /// The first layer: `[text width, joined vision width]`.
    pub fn first(&self) -> LinearTensors<'a> {
        self.linear(0, self.input())
    }

    /// The second layer: `[text width, text width]`.
    pub fn second(&self) -> LinearTensors<'a> {
        self.linear(1, self.config.text.hidden_size)
    }

    fn linear(&self, which: usize, input: usize) -> LinearTensors<'a> {
        let parts = [(self.names.linear[which], self.config.text.hidden_size)];
        LinearTensors::new(self.at.clone(), &parts, input, self.config.projector.bias)
    }

    fn input(&self) -> usize {
        self.config.vision.hidden_size * self.config.vision.shuffle * self.config.vision.shuffle
    }
}

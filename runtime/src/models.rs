//! The models, written once over [`crate::ops`]: towers, projector, decoder, and how they join.

mod clip;
mod intern_vit;
mod language;
mod loading;
mod packing;
mod projector;
mod vision;
mod vision_language;

pub use language::Language;
pub use loading::{HeldWeights, LoadTimes};
pub use projector::Projector;
pub use vision::VisionTower;
pub use vision_language::VisionLanguage;

use candle_core::{DType, Result, Tensor};

use crate::checkpoint::{CheckpointError, NormTensors};
use crate::ops::{LayerNorm, Linear, RmsNorm};
use loading::Loading;

fn start(error: &candle_core::Error) -> CheckpointError {
    CheckpointError::Start(error.to_string())
}

/// A norm of a tower or a projector.
enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    fn new(tensors: NormTensors, eps: f64) -> Self {
        match tensors.bias {
            Some(bias) => Self::Layer(LayerNorm::new(tensors.weight, bias, eps)),
            None => Self::Rms(RmsNorm::new(tensors.weight, eps)),
        }
    }

    /// `[…, width]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_as(x, DType::F32)
    }

    /// As [`Self::forward`], in the format in which `linear` takes the rows `x`.
    fn forward_for(&self, x: &Tensor, linear: &Linear) -> Result<Tensor> {
        self.forward_as(x, linear.takes())
    }

    fn forward_as(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward_as(x, out),
            Self::Rms(norm) => norm.forward_as(x, out),
        }
    }
}

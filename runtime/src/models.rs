//! The models, written once over [`crate::ops`]: towers, projector, decoder, and how they join.

mod clip;
mod intern_vit;
mod language;
mod packing;
mod projector;
mod vision;
mod vision_language;

pub use language::Language;
pub use projector::Projector;
pub use vision::VisionTower;
pub use vision_language::{VisionLanguage, finite};

use candle_core::{Result, Tensor};

use crate::checkpoint::{CheckpointError, LinearTensors, NormTensors};
use crate::ops::{LayerNorm, Linear, RmsNorm};

fn linear(tensors: &LinearTensors) -> std::result::Result<Linear, CheckpointError> {
    let joined = |parts: &[Tensor]| match parts {
        [one] => Ok(one.clone()),
        parts => Tensor::cat(parts, 0).map_err(|e| start(&e)),
    };
    let bias = if tensors.biases.is_empty() { None } else { Some(joined(&tensors.biases)?) };
    Ok(Linear::new(joined(&tensors.weights)?, bias))
}

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
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}

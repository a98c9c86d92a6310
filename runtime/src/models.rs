//! The models, written once over [`crate::ops`]: towers, projector, decoder, and how they join.

mod clip;
mod language;
mod llava;
mod projector;

pub use clip::ClipTower;
pub use language::Language;
pub use llava::Llava;
pub use projector::Projector;

use crate::checkpoint::{CheckpointError, Tensors};
use crate::ops::{LayerNorm, Linear};

fn linear(at: &Tensors<'_>, input: usize, output: usize, bias: bool) -> Result<Linear, CheckpointError> {
    let weight = at.get("weight", &[output, input])?;
    let bias = if bias { Some(at.get("bias", &[output])?) } else { None };
    Ok(Linear::new(weight, bias))
}

fn layer_norm(at: &Tensors<'_>, width: usize, eps: f64) -> Result<LayerNorm, CheckpointError> {
    Ok(LayerNorm::new(at.get("weight", &[width])?, at.get("bias", &[width])?, eps))
}

fn stack(parts: &[Linear]) -> Result<Linear, CheckpointError> {
    Linear::stack(parts).map_err(|e| CheckpointError::Start(e.to_string()))
}

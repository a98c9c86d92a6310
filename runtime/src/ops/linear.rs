//! `x · Wᵀ + b` over weights in 32 or 16 bits or in blocks of GGUF; activations and sums are f32. Few rows are bound
//! by reading the weights once: own products; many rows go to the matrix product of the backend.

mod activations;
mod blocks;
mod drawn;
mod few_rows;
mod kernels;
mod many_rows;
#[cfg(feature = "cuda")]
mod on_gpu;

use candle_core::{Result, Tensor, bail};

pub use blocks::{BlockBuilder, Blocks};

/// Rows up to which the own products are used for weights that are not quantised.
const FEW_ROWS: usize = 8;
/// The same for quantised weights: products in integers stay ahead for longer.
pub const FEW_QUANTISED_ROWS: usize = 32;

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

/// The weights of a linear layer, `[out, in]`.
#[derive(Clone, Debug)]
pub enum Weight {
    /// f32, f16 or bf16, contiguous.
    Dense(Tensor),
    /// Quantised.
    Blocks(Blocks),
}

impl Linear {
    /// `bias` is `[out]` in f32.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `[rows, in]` to `[rows, out]`, f32 both.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inner) = x.dims2()?;
        let (_, input) = self.weight.dims()?;
        if inner != input {
            bail!("a linear layer of rows of {input} numbers cannot take rows of {inner}")
        }
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return on_gpu::forward(x, &self.weight, self.bias.as_ref());
        }
        let y = if rows <= self.weight.few_rows() {
            few_rows::forward(x, &self.weight)?
        } else {
            many_rows::forward(x, &self.weight)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl Weight {
    /// Rows, and the length of each.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Dense(tensor) => tensor.dims2(),
            Self::Blocks(blocks) => Ok(blocks.dims()),
        }
    }

    fn few_rows(&self) -> usize {
        match self {
            Self::Dense(_) => FEW_ROWS,
            Self::Blocks(_) => FEW_QUANTISED_ROWS,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
            Self::Blocks(blocks) => blocks.byte_len(),
        }
    }
}

#[cfg(test)]
mod tests;

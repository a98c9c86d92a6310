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

use candle_core::{DType, Result, Tensor, bail};

use super::activation::silu_mul;
use super::residual::add;

pub use blocks::{BlockBuilder, Blocks};
#[cfg(feature = "cuda")]
pub use on_gpu::ring;

/// Rows up to which the own products are used for weights that are not quantised.
const FEW_ROWS: usize = 8;
/// The same for quantised weights: products in integers stay ahead for longer.
const FEW_QUANTISED_ROWS: usize = 32;

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

    /// The format to which rows are rounded before they are multiplied: the weights' 16 bits on a GPU, and otherwise f32, which
    /// is not rounded. Rows may come in either.
    pub fn takes(&self) -> DType {
        match &self.weight {
            Weight::Dense(weight) if weight.device().is_cuda() => weight.dtype(),
            _ => DType::F32,
        }
    }

    /// The format of the weights, f32 where they are quantised.
    pub fn dtype(&self) -> DType {
        match &self.weight {
            Weight::Dense(weight) => weight.dtype(),
            Weight::Blocks(_) => DType::F32,
        }
    }

    /// Its weights.
    #[cfg(feature = "cuda")]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Its bias, `[out]` in f32.
    #[cfg(feature = "cuda")]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// With zeros behind the weights of each output, so that it takes rows of a multiple of `length` numbers: what a GPU
    /// multiplies fast begins at even places. Quantised weights stay as they are.
    pub fn padded(self, length: usize) -> Result<Self> {
        let Weight::Dense(weight) = &self.weight else { return Ok(self) };
        let inner = weight.dim(1)?;
        let weight = weight.pad_with_zeros(1, 0, inner.next_multiple_of(length) - inner)?.contiguous()?;
        Ok(Self { weight: Weight::Dense(weight), ..self })
    }

    /// Numbers of a row that it takes.
    pub fn inputs(&self) -> Result<usize> {
        self.weight.dims().map(|(_, inputs)| inputs)
    }

    /// Numbers that it gives for each row.
    pub fn outputs(&self) -> Result<usize> {
        self.weight.dims().map(|(outputs, _)| outputs)
    }

    /// `[rows, in]` to `[rows, out]` in f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.products(x, DType::F32)
    }

    /// As [`Self::forward`], in the format that [`Self::takes`]: for what only goes through an activation.
    pub fn forward_rounded(&self, x: &Tensor) -> Result<Tensor> {
        self.products(x, self.takes())
    }

    /// `to` (`[rows, out]` in f32) plus what [`Self::forward`] gives, in its memory where the device adds products to what
    /// is there. Nothing else may need what `to` was.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::needless_pass_by_value, reason = "its memory is taken on a GPU"))]
    pub fn forward_added(&self, x: &Tensor, to: Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Weight::Dense(weight) = &self.weight
            && self.takes() != DType::F32
        {
            self.check(x)?;
            on_gpu::add_to(&to, x, weight, self.bias.as_ref())?;
            return Ok(to);
        }
        #[cfg(feature = "cuda")]
        if let Weight::Blocks(blocks) = &self.weight
            && x.device().is_cuda()
        {
            self.check(x)?;
            if on_gpu::add_quantised_to(&to, x, blocks, self.bias.as_ref())? {
                return Ok(to);
            }
        }
        add(&to, &self.forward(x)?)
    }

    /// `SiLU` of the first half of what [`Self::forward_rounded`] gives times the second half ([`silu_mul`]).
    pub fn forward_gated(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Weight::Dense(weight) = &self.weight
            && self.takes() != DType::F32
        {
            self.check(x)?;
            return on_gpu::forward_gated(x, weight, self.bias.as_ref());
        }
        #[cfg(feature = "cuda")]
        if let Weight::Blocks(blocks) = &self.weight
            && x.device().is_cuda()
            && self.bias.is_none()
        {
            self.check(x)?;
            if let Some(gated) = on_gpu::forward_quantised_gated(x, blocks)? {
                return Ok(gated);
            }
        }
        silu_mul(&self.forward_rounded(x)?)
    }

    fn check(&self, x: &Tensor) -> Result<usize> {
        let (rows, inner) = x.dims2()?;
        let (_, input) = self.weight.dims()?;
        if inner != input {
            bail!("a linear layer of rows of {input} numbers cannot take rows of {inner}")
        }
        Ok(rows)
    }

    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "a CPU gives f32 alone"))]
    fn products(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        let rows = self.check(x)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return on_gpu::forward(x, &self.weight, self.bias.as_ref(), out);
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

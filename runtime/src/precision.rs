//! In which number formats a model is held: the format of its unquantised weights and its KV cache, and the
//! quantisation of its linear layers. Owns the names that a command line has for them.

use candle_core::{DType, Device};
use clap::{Args, ValueEnum};
use vlm_catalog::quantization::Quantization;

/// Number format of weights that are not quantised, and of keys and values. Sums are always made in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// What the checkpoint stores on a GPU, f32 on a CPU.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, half precision: LLaVA was trained in it.
    F16,
    /// 16 bits with the exponent of f32: InternVL was trained in it.
    Bf16,
}

/// Number formats of a loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Of weights that are not quantised, and of keys and values: f32, f16 or bf16.
    pub dtype: DType,
    /// Of the decoder's linear layers and its head.
    pub quantization: Quantization,
}

impl Precision {
    /// Weights as they are computed on a CPU.
    pub const F32: Self = Self { dtype: DType::F32, quantization: Quantization::None };
}

/// Flags of every command that loads a model.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PrecisionArgs {
    /// Number format of weights that are not quantised, and of keys and values.
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    pub dtype: Dtype,
    /// Quantise the decoder while loading: int8 (Q8_0) or int4 (Q4_K, Q4_0 where rows are no multiple of 256; head Q8_0).
    /// Weights only, made without calibration; not the formats of GPTQ, AWQ or bitsandbytes.
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub quantization: Quantization,
}

impl PrecisionArgs {
    /// What they mean on `device` for a checkpoint that stores its decoder in `stored`.
    pub fn on(self, device: &Device, stored: DType) -> Precision {
        let dtype = match self.dtype {
            Dtype::Auto if device.is_cpu() => DType::F32,
            Dtype::Auto => stored,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        };
        Precision { dtype, quantization: self.quantization }
    }
}

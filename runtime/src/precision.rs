//! In which number formats a model is held: the format of its unquantised weights, that of its KV cache, and the
//! quantisation of its linear layers. Owns the names that a command line has for them.

use candle_core::{DType, Device};
use clap::{Args, ValueEnum};
use vlm_catalog::architecture::TextConfig;
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::Quantization;

use crate::ops::{EightBits, KvFormat};

/// Number format of weights that are not quantised. Sums are always made in f32.
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
    /// Of weights that are not quantised: f32, f16 or bf16.
    pub dtype: DType,
    /// Of the decoder's linear layers and its head.
    pub quantization: Quantization,
    /// Of keys and values.
    pub kv_cache: KvCacheDtype,
}

impl Precision {
    /// Weights as they are computed on a CPU.
    pub const F32: Self = Self { dtype: DType::F32, quantization: Quantization::None, kv_cache: KvCacheDtype::Auto };

    /// How keys and values are held.
    pub fn kv_format(self) -> KvFormat {
        match self.kv_cache {
            KvCacheDtype::Auto => KvFormat::Numbers(self.dtype),
            KvCacheDtype::Int8 => KvFormat::Bytes(EightBits::Int8),
            KvCacheDtype::Fp8 => KvFormat::Bytes(EightBits::Fp8),
        }
    }

    /// The name of the format of keys and values, where it is another than that of weights that are not quantised.
    pub fn own_kv_cache_dtype(self) -> Option<&'static str> {
        (self.kv_cache != KvCacheDtype::Auto).then(|| self.kv_cache.name())
    }

    /// Bytes of keys and values that one token keeps.
    pub fn kv_bytes_per_token(self, text: &TextConfig) -> u64 {
        self.kv_cache.bytes_per_token(text, self.dtype.size_in_bytes())
    }
}

/// Flags of every command that loads a model.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PrecisionArgs {
    /// Number format of weights that are not quantised, and of keys and values where --kv-cache-dtype says no other.
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    pub dtype: Dtype,
    /// Number format of keys and values: auto (that of the weights that are not quantised), int8 or fp8 (E4M3), both with a
    /// scale for each head of a token. 8 bits hold about twice as many sequences as 16.
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub kv_cache_dtype: KvCacheDtype,
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
        Precision { dtype, quantization: self.quantization, kv_cache: self.kv_cache_dtype }
    }
}

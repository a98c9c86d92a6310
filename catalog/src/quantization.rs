//! Which number format a weight gets when a model is quantised on load: `int8` and `int4` are the block
//! formats of GGUF, weights only, made without calibration. They are not those of GPTQ, AWQ or bitsandbytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Weights as they are stored.
    #[default]
    None,
    /// Linear layers of the decoder and its head in [`BlockFormat::Q8_0`].
    Int8,
    /// Linear layers of the decoder in [`BlockFormat::Q4_K`], or [`BlockFormat::Q4_0`] where the rows are no
    /// multiple of its blocks; the head in [`BlockFormat::Q8_0`].
    Int4,
}

/// Which linear layer of the decoder. Embeddings, norms, vision tower and projector are never quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearRole {
    /// A projection of attention or of the gated layer.
    Decoder,
    /// The output head.
    Head,
}

/// Block formats of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names by which everyone knows them")]
pub enum BlockFormat {
    /// 32 signed bytes under one f16 scale.
    Q8_0,
    /// 256 numbers of 4 bits; 8 scales and minima of 6 bits under two f16 scales.
    Q4_K,
    /// 32 numbers of 4 bits under one f16 scale.
    Q4_0,
}

impl BlockFormat {
    /// Numbers in a block; rows must be a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 2 + 32,
            Self::Q4_K => 2 + 2 + 12 + 128,
            Self::Q4_0 => 2 + 16,
        }
    }

    /// Bits of a number, its share of the scales included.
    pub fn bits_per_weight(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }

    /// Whether rows of `row_length` numbers are whole blocks.
    pub const fn fits(self, row_length: usize) -> bool {
        row_length.is_multiple_of(self.block_len())
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_K => "Q4_K",
            Self::Q4_0 => "Q4_0",
        })
    }
}

impl Quantization {
    /// Every value, as a user may write it.
    pub const ALL: [Self; 3] = [Self::None, Self::Int8, Self::Int4];

    /// The format of a linear layer whose rows have `row_length` numbers; `None` leaves it in 16 bit.
    pub fn format(self, role: LinearRole, row_length: usize) -> Option<BlockFormat> {
        let candidates: &[BlockFormat] = match (self, role) {
            (Self::None, _) => &[],
            (Self::Int8, _) | (Self::Int4, LinearRole::Head) => &[BlockFormat::Q8_0],
            (Self::Int4, LinearRole::Decoder) => &[BlockFormat::Q4_K, BlockFormat::Q4_0],
        };
        candidates.iter().copied().find(|format| format.fits(row_length))
    }

    /// The name that a user writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|quantization| quantization.name() == name);
        found.ok_or_else(|| format!("the quantization {name:?} is not known (supported: none, int8, int4)"))
    }
}

/// What a manifest may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum QuantizationChoice {
    /// The first of [`Quantization::ALL`] with which the wished context and concurrency fit.
    #[default]
    Auto,
    /// This one.
    Fixed(Quantization),
}

impl QuantizationChoice {
    /// Every value, as a user may write it.
    pub const ALL: [Self; 4] =
        [Self::Fixed(Quantization::None), Self::Fixed(Quantization::Int8), Self::Fixed(Quantization::Int4), Self::Auto];

    /// The name that a user writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fixed(quantization) => quantization.name(),
        }
    }
}

impl fmt::Display for QuantizationChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<QuantizationChoice> for String {
    fn from(choice: QuantizationChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for QuantizationChoice {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for QuantizationChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|choice| choice.name() == name);
        found.ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            format!("the quantization {name:?} is not known (supported: none, int8, int4, auto)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cost_the_published_bits() {
        let bits = |format: BlockFormat| format.bits_per_weight();
        let all = [BlockFormat::Q8_0, BlockFormat::Q4_K, BlockFormat::Q4_0];
        for (format, expected) in all.into_iter().zip([8.5, 4.5, 4.5]) {
            assert!((bits(format) - expected).abs() < 1e-12, "{format}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        let int4 = |row| Quantization::Int4.format(LinearRole::Decoder, row);
        assert_eq!(int4(4096), Some(BlockFormat::Q4_K));
        for row in [896, 29_568, 64, 32] {
            assert_eq!(int4(row), Some(BlockFormat::Q4_0), "{row}");
        }
        assert_eq!(int4(112), None);
        assert_eq!(Quantization::Int8.format(LinearRole::Decoder, 112), None);
        assert_eq!(Quantization::Int8.format(LinearRole::Decoder, 896), Some(BlockFormat::Q8_0));
    }

    #[test]
    fn the_head_keeps_eight_bits_and_nothing_is_quantised_unasked() {
        assert_eq!(Quantization::Int4.format(LinearRole::Head, 4096), Some(BlockFormat::Q8_0));
        assert_eq!(Quantization::Int8.format(LinearRole::Head, 4096), Some(BlockFormat::Q8_0));
        assert_eq!(Quantization::None.format(LinearRole::Head, 4096), None);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for quantization in Quantization::ALL {
            assert_eq!(quantization.to_string().parse(), Ok(quantization));
        }
        for choice in QuantizationChoice::ALL {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!(QuantizationChoice::ALL.len(), Quantization::ALL.len() + 1);
        assert!("int3".parse::<QuantizationChoice>().unwrap_err().contains("auto"));
        let error = "int3".parse::<Quantization>().unwrap_err();
        assert!(error.contains("int3") && error.contains("int8"), "{error}");
    }
}

//! In which number format keys and values are kept: as the weights that are not quantised, or in 8 bits, where the numbers
//! of one head of one token share a scale. Half as many bytes hold twice as many sequences, and are half as many to read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::architecture::TextConfig;

/// Bytes of the scale of a head of a token, in f32.
pub const KV_SCALE_BYTES: usize = 4;

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KvCacheDtype {
    /// That of weights that are not quantised.
    #[default]
    Auto,
    /// Signed integers up to 127 times the scale.
    Int8,
    /// E4M3, up to 448 times the scale: three bits behind the first, in whatever magnitude.
    Fp8,
}

impl KvCacheDtype {
    /// Every value, as a user may write it.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Int8, Self::Fp8];

    /// The name that a user writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        }
    }

    /// As a note behind "keys and values", which says nothing where they are as other numbers.
    pub fn note(self) -> String {
        if self == Self::Auto { String::new() } else { format!(" ({self})") }
    }

    /// Bytes of keys and values that one token keeps, where other numbers have `number_bytes`.
    pub fn bytes_per_token(self, text: &TextConfig, number_bytes: usize) -> u64 {
        let head = match self {
            Self::Auto => text.head_dim.saturating_mul(number_bytes),
            Self::Int8 | Self::Fp8 => text.head_dim.saturating_add(KV_SCALE_BYTES),
        };
        [text.layers, text.kv_heads, head].into_iter().fold(2, |bytes, factor| bytes.saturating_mul(factor as u64))
    }
}

impl fmt::Display for KvCacheDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<KvCacheDtype> for String {
    fn from(dtype: KvCacheDtype) -> Self {
        dtype.to_string()
    }
}

impl TryFrom<String> for KvCacheDtype {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for KvCacheDtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            format!("the format {name:?} of keys and values is not known (supported: auto, int8, fp8)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for dtype in KvCacheDtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let error = "int4".parse::<KvCacheDtype>().unwrap_err();
        assert!(error.contains("int4") && error.contains("fp8"), "{error}");
    }
}

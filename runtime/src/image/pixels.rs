//! The pixels of a prepared picture: bytes as they were drawn, of which the model makes numbers where it computes.

use std::borrow::Cow;
use std::ops::Range;

/// From bytes to normalised values: `byte · scale + offset`, by channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Normaliser {
    /// What a byte is multiplied by.
    pub scale: [f32; 3],
    /// What is added.
    pub offset: [f32; 3],
    /// The mean as bytes.
    pub colour: [u8; 3],
}

impl Normaliser {
    /// Of `(byte · rescale − mean) / std`.
    pub fn new(rescale: f64, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self {
            scale: std.map(|std| (rescale / std) as f32),
            offset: [0, 1, 2].map(|c| (-mean[c] / std[c]) as f32),
            colour: mean.map(|mean| (mean * 255.0) as u8),
        }
    }
}

/// Tiles of pixels, `[tiles, 3, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// As they were drawn: a quarter of what their numbers would take.
    Bytes {
        /// The bytes.
        bytes: Vec<u8>,
        /// Bytes of a channel of a tile.
        plane: usize,
        /// What makes numbers of them.
        normaliser: Normaliser,
    },
    /// Normalised elsewhere, as those of a reference.
    Numbers(Vec<f32>),
}

impl From<Vec<f32>> for Pixels {
    fn from(numbers: Vec<f32>) -> Self {
        Self::Numbers(numbers)
    }
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => bytes.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that they take.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => bytes.len(),
            Self::Numbers(numbers) => size_of_val(numbers.as_slice()),
        }
    }

    /// All normalised values.
    pub fn values(&self) -> Cow<'_, [f32]> {
        self.some_values(0..self.len()).unwrap_or_default()
    }

    /// Some of the normalised values; `None` where there are not so many.
    pub fn some_values(&self, range: Range<usize>) -> Option<Cow<'_, [f32]>> {
        let (bytes, plane, normaliser) = match self {
            Self::Numbers(numbers) => return numbers.get(range).map(Cow::Borrowed),
            Self::Bytes { bytes, plane, normaliser } => (bytes.get(range.clone())?, (*plane).max(1), normaliser),
        };
        let value = |(at, byte): (usize, &u8)| {
            let channel = at / plane % 3;
            f32::from(*byte) * normaliser.scale[channel] + normaliser.offset[channel]
        };
        Some((range.start..).zip(bytes).map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_numbers_channel_by_channel_from_wherever_some_begin() {
        let normaliser = Normaliser { scale: [1.0, 2.0, 4.0], offset: [0.5, 0.0, -1.0], colour: [0; 3] };
        let pixels = Pixels::Bytes { bytes: (1..=12).collect(), plane: 2, normaliser };
        let all = [1.5, 2.5, 6.0, 8.0, 19.0, 23.0, 7.5, 8.5, 18.0, 20.0, 43.0, 47.0];
        assert_eq!((pixels.values().as_ref(), pixels.len(), pixels.size_bytes()), (&all[..], 12, 12));
        assert_eq!(pixels.some_values(3..8).as_deref(), Some(&all[3..8]));
        assert_eq!(pixels.some_values(3..13), None);
        let numbers = Pixels::from(all.to_vec());
        assert_eq!((numbers.values(), numbers.size_bytes()), (pixels.values(), 48));
        assert!(numbers.some_values(11..13).is_none() && Pixels::from(Vec::new()).is_empty());
    }
}

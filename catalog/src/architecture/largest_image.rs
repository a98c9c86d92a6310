//! The most that one picture can ask for: tiles through the tower, and rows of the decoder. What a picture of a given
//! size asks for is known only where pictures are cut.

use super::{ModelConfig, Tiling};

impl ModelConfig {
    /// Tiles of the picture that is cut into most of them, the whole picture among them.
    pub fn largest_image_tiles(&self) -> u64 {
        match &self.tiling {
            Tiling::One { .. } => 1,
            Tiling::AnyRes { .. } => {
                1 + self.grids().map(|(rows, columns)| rows.saturating_mul(columns)).max().unwrap_or(0)
            }
            Tiling::Dynamic { max, thumbnail, .. } => u64::from(*max) + u64::from(*thumbnail && *max > 1),
        }
    }

    /// Tokens of the prompt that the largest picture takes.
    pub fn largest_image_tokens(&self) -> u64 {
        let tile = self.vision.tokens_per_tile() as u64;
        match &self.tiling {
            Tiling::AnyRes { .. } => {
                let side = self.vision.grid() as u64;
                // Nothing of the grid is cut away, and each of its lines ends in a row of its own.
                let packed = |(rows, columns): (u64, u64)| {
                    rows.saturating_mul(columns).saturating_mul(tile).saturating_add(rows.saturating_mul(side))
                };
                tile.saturating_add(self.grids().map(packed).max().unwrap_or(0))
            }
            _ => self.largest_image_tiles().saturating_mul(tile),
        }
    }

    /// Rows and columns of tiles of each candidate size.
    fn grids(&self) -> impl Iterator<Item = (u64, u64)> {
        let side = self.vision.image_size.max(1) as u64;
        let pinpoints = match &self.tiling {
            Tiling::AnyRes { pinpoints } => pinpoints.as_slice(),
            _ => &[],
        };
        pinpoints
            .iter()
            .map(move |(height, width)| (u64::from(*height).div_ceil(side), u64::from(*width).div_ceil(side)))
    }
}

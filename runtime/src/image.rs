//! From where a picture is ([`fetch`], [`mod@file`]) to its bytes, and from these to pixels. Owns limits and
//! the errors a client sees; knows nothing of prompts.

mod decode;
pub mod fetch;
pub mod file;
mod key;
mod pixels;
mod resize;
mod tiles;

use thiserror::Error;

pub use decode::decode;
pub use key::ImageKey;
pub use pixels::{Normaliser, Pixels};
pub use tiles::Preprocessing;

/// Most tiles of the grid of one picture, where a family lets the picture choose (`InternVL`); `None` leaves it to
/// the model. With several pictures each may have as many; a caller whose context is short divides. A budget of 1
/// leaves of a grid of LLaVA-1.6 the whole picture alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileBudget(pub Option<u32>);

impl TileBudget {
    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.into_iter().chain(other.0).min())
    }
}

/// How LLaVA-1.5 makes a picture square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ImageAspect {
    /// With a margin of the mean colour.
    Pad,
    /// By cutting off what is beside the middle.
    Crop,
}

/// What a picture may cost before it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct ImageLimits {
    /// Most pixels, width times height, read from the header before anything is decoded.
    pub max_pixels: u64,
    /// Most bytes of the encoded file.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 40_000_000, max_bytes: 20_971_520 }
    }
}

/// A picture as the vision tower takes it.
#[derive(Clone, Debug)]
pub struct PreparedImage {
    /// Number of tiles.
    pub tiles: usize,
    /// Height of a tile in pixels.
    pub height: usize,
    /// Width of a tile in pixels.
    pub width: usize,
    /// What is seen, `[tiles, 3, height, width]`.
    pub pixels: Pixels,
    /// Prompt tokens that the picture takes.
    pub tokens: usize,
    /// The part of the grid's features that is kept, for families that pack a grid (LLaVA-1.6).
    pub kept: Option<KeptGrid>,
    /// Equal for equal pixels of equal pictures alone.
    pub key: ImageKey,
}

/// Which of a grid's feature rows are picture and not padding (LLaVA-1.6). The first tile is the whole
/// picture; the others form `tile_rows` × `tile_columns`. All other numbers count feature rows, one a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptGrid {
    /// Tiles from top to bottom.
    pub tile_rows: usize,
    /// Tiles from left to right.
    pub tile_columns: usize,
    /// First kept row of the joined grid.
    pub top: usize,
    /// First kept column.
    pub left: usize,
    /// Kept rows; 0 when nothing is left of an extreme picture.
    pub height: usize,
    /// Kept columns.
    pub width: usize,
}

/// Why a picture was refused, as a sentence for the client.
#[derive(Debug, Error, PartialEq)]
pub enum ImageError {
    /// There are no bytes.
    #[error("the image is empty; send the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file")]
    Empty,
    /// Recognised, but not decoded by this server.
    #[error("{format} images are not supported; send JPEG, PNG, WebP, GIF, BMP or TIFF")]
    UnsupportedFormat {
        /// Name of the format.
        format: String,
    },
    /// The bytes are no picture, or a broken one.
    #[error("the image cannot be decoded ({reason}); send an intact JPEG, PNG, WebP, GIF, BMP or TIFF file")]
    Undecodable {
        /// What the decoder said.
        reason: String,
    },
    /// More pixels than allowed.
    #[error("the image has {width}x{height} pixels, more than the limit of {limit}; send a smaller one")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// A larger file than allowed.
    #[error("the image has {bytes} bytes, more than the limit of {limit}; send a smaller one")]
    TooManyBytes {
        /// Bytes of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// One side is much longer than the other.
    #[error("the image is {width}x{height} pixels, and one side may be at most {limit} times the other; crop it")]
    AspectRatio {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Longest side over shortest side.
        limit: u32,
    },
}

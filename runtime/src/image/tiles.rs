//! How each family cuts a picture into tiles: what is resized to which size and lands where, how many tokens
//! it takes, and the pixels. The values come from [`settings`].

mod anyres;
mod dynamic;
mod settings;

use image::RgbImage;
use vlm_catalog::architecture::{ModelConfig, Tiling};

use super::resize::{Crop, Source, resize};
use super::{
    ImageAspect, ImageError, ImageKey, ImageLimits, KeptGrid, Normaliser, Pixels, PreparedImage, TileBudget, decode,
};
use crate::checkpoint::{Checkpoint, CheckpointError};
use settings::Settings;

/// Preprocessing of one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    cut: Cut,
    /// Side of a tile in pixels.
    side: u32,
    /// Rows of features along one side of a tile.
    grid: u32,
    tokens_per_tile: usize,
    normaliser: Normaliser,
}

/// How a family cuts.
#[derive(Clone, Debug, PartialEq)]
enum Cut {
    One { shortest_edge: u32, pad: bool },
    AnyRes { pinpoints: Vec<(u32, u32)>, rounding: anyres::Rounding },
    Dynamic { min: u32, max: u32, thumbnail: bool },
}

/// What becomes of a picture of one size.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    views: Vec<View>,
    tiles: usize,
    tokens: usize,
    kept: Option<KeptGrid>,
}

/// One resizing of the picture, pasted on a canvas that is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
struct View {
    /// Whether the picture is first put in the middle of a square of the mean colour.
    squared: bool,
    /// Width and height to resize to.
    size: (u32, u32),
    /// The part of it that is kept.
    crop: Crop,
    /// Where that is pasted.
    at: (u32, u32),
    /// Columns and rows of tiles.
    tiles: (u32, u32),
    /// Number of the first of them.
    first_tile: usize,
}

impl View {
    /// Everything, squeezed into a grid of tiles.
    fn squeezed((columns, rows): (u32, u32), side: u32, first_tile: usize) -> Self {
        let (width, height) = (columns * side, rows * side);
        let crop = Crop { x: 0, y: 0, width, height };
        Self { squared: false, size: (width, height), crop, at: (0, 0), tiles: (columns, rows), first_tile }
    }
}

impl Preprocessing {
    /// For `checkpoint`, as its configuration and its preprocessor's file say.
    ///
    /// # Errors
    /// A malformed file, or one that asks for what is not served.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let config = checkpoint.config();
        Self::new(config, &Settings::read(checkpoint)?)
    }

    /// For a model without a preprocessor's file.
    ///
    /// # Errors
    /// More tiles, or other ones, than are served.
    pub fn of(config: &ModelConfig) -> Result<Self, CheckpointError> {
        Self::new(config, &Settings::default())
    }

    fn new(config: &ModelConfig, settings: &Settings) -> Result<Self, CheckpointError> {
        let side = config.vision.image_size as u32;
        settings.check(config.family, side)?;
        let cut = match &config.tiling {
            Tiling::One { pad } => {
                Cut::One { shortest_edge: settings.shortest_edge(side)?, pad: pad.unwrap_or(settings.pads()) }
            }
            Tiling::AnyRes { pinpoints } => Cut::AnyRes {
                pinpoints: settings.pinpoints(pinpoints, side)?,
                rounding: anyres::Rounding::of(config.dialect),
            },
            Tiling::Dynamic { min, max, thumbnail } => {
                let (min, max) = settings.tiles(*min, *max)?;
                Cut::Dynamic { min, max, thumbnail: *thumbnail }
            }
        };
        Ok(Self {
            cut,
            side,
            grid: (config.vision.grid() / config.vision.shuffle.max(1)) as u32,
            tokens_per_tile: config.vision.tokens_per_tile(),
            normaliser: settings.normaliser(config.family)?,
        })
    }

    /// With pictures padded or cropped to a square, whatever the checkpoint's files say; `None` when the family
    /// does neither.
    pub fn with_aspect(mut self, aspect: ImageAspect) -> Option<Self> {
        let Cut::One { pad, .. } = &mut self.cut else { return None };
        *pad = aspect == ImageAspect::Pad;
        Some(self)
    }

    /// Most tiles of a picture's grid, where a [`TileBudget`] can lower it.
    pub fn most_tiles(&self) -> Option<u32> {
        match self.cut {
            Cut::Dynamic { max, .. } => Some(max),
            Cut::One { .. } | Cut::AnyRes { .. } => None,
        }
    }

    /// Decodes and cuts one picture.
    ///
    /// # Errors
    /// A picture that is broken, of no known format, or beyond `limits`.
    pub fn prepare(&self, bytes: &[u8], limits: &ImageLimits, budget: TileBudget) -> Result<PreparedImage, ImageError> {
        Ok(self.cut(&decode(bytes, limits)?, budget, self.key(ImageKey::of_file(bytes), budget)))
    }

    /// What the picture in the file of this name will be known as.
    pub fn key(&self, file: ImageKey, budget: TileBudget) -> ImageKey {
        let budget = if matches!(self.cut, Cut::One { .. }) { TileBudget::default() } else { budget };
        file.prepared(&self.identity(), budget)
    }

    /// Stands for every setting that has a say in the pixels.
    fn identity(&self) -> [u8; 32] {
        blake3::hash(format!("{self:?}").as_bytes()).into()
    }

    /// Cuts decoded pixels, which will be known as `key`.
    pub fn cut(&self, image: &RgbImage, budget: TileBudget, key: ImageKey) -> PreparedImage {
        let plan = self.plan(image.dimensions(), budget);
        let side = self.side as usize;
        // What no view covers is black.
        let mut bytes = vec![0; plan.tiles * 3 * side * side];
        for view in &plan.views {
            self.draw(image, view, &mut bytes[view.first_tile * 3 * side * side..]);
        }
        let pixels = Pixels::Bytes { bytes, plane: side * side, normaliser: self.normaliser };
        let Plan { tiles, tokens, kept, .. } = plan;
        PreparedImage { tiles, height: side, width: side, pixels, tokens, kept, key }
    }

    fn plan(&self, size: (u32, u32), budget: TileBudget) -> Plan {
        match &self.cut {
            Cut::One { shortest_edge, pad } => {
                let views = vec![self.single(size, *shortest_edge, *pad)];
                Plan { views, tiles: 1, tokens: self.tokens_per_tile, kept: None }
            }
            Cut::AnyRes { .. } if budget.0.is_some_and(|most| most <= 1) => {
                let views = vec![View::squeezed((1, 1), self.side, 0)];
                Plan { views, tiles: 1, tokens: self.tokens_per_tile, kept: None }
            }
            Cut::AnyRes { pinpoints, rounding } => {
                anyres::plan(size, pinpoints, *rounding, (self.side, self.grid, self.tokens_per_tile))
            }
            Cut::Dynamic { min, max, thumbnail } => {
                let max = budget.0.map_or(*max, |most| most.clamp(1, *max));
                let grid = dynamic::grid(size, (*min).min(max), max, self.side);
                let count = (grid.0 * grid.1) as usize;
                let mut views = vec![View::squeezed(grid, self.side, 0)];
                if *thumbnail && count > 1 {
                    views.push(View::squeezed((1, 1), self.side, count));
                }
                let tiles = count + views.len() - 1;
                Plan { views, tiles, tokens: tiles * self.tokens_per_tile, kept: None }
            }
        }
    }

    /// LLaVA-1.5: the shortest edge to `shortest_edge`, the longest cut short in the way of integers, then the middle.
    fn single(&self, (width, height): (u32, u32), shortest_edge: u32, squared: bool) -> View {
        let shortest = if squared { width.max(height) } else { width.min(height) };
        let scaled = |edge: u32| {
            let edge = if squared { shortest } else { edge };
            (u64::from(shortest_edge) * u64::from(edge) / u64::from(shortest)) as u32
        };
        let size = (scaled(width), scaled(height));
        let (x, y) = ((size.0 - self.side) / 2, (size.1 - self.side) / 2);
        let crop = Crop { x, y, width: self.side, height: self.side };
        View { squared, size, crop, at: (0, 0), tiles: (1, 1), first_tile: 0 }
    }

    /// Draws `view` into its tiles, the first of which `pixels` begins with.
    fn draw(&self, image: &RgbImage, view: &View, pixels: &mut [u8]) {
        let side = self.side as usize;
        let (columns, rows) = view.tiles;
        let pixels = &mut pixels[..(columns * rows) as usize * 3 * side * side];
        let source = if view.squared { Source::squared(image, self.normaliser.colour) } else { Source::new(image) };
        let mut y = view.at.1 as usize;
        resize(&source, view.size, view.crop, |planes| {
            let first = y / side * columns as usize;
            for (channel, plane) in planes.into_iter().enumerate() {
                let mut x = view.at.0 as usize;
                let mut plane = plane;
                while !plane.is_empty() {
                    let (part, rest) = plane.split_at(plane.len().min(side - x % side));
                    let tile = first + x / side;
                    let start = ((tile * 3 + channel) * side + y % side) * side + x % side;
                    pixels[start..start + part.len()].copy_from_slice(part);
                    (x, plane) = (x + part.len(), rest);
                }
            }
            y += 1;
        });
    }
}

#[cfg(test)]
mod tests;

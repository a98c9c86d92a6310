//! `preprocessor_config.json` (or `processor_config.json`): reads it and refuses what is not served.

use serde::Deserialize;
use vlm_catalog::architecture::{Dialect, Family};

use super::Normaliser;
use crate::checkpoint::{Checkpoint, CheckpointError};

const CLIP: ([f64; 3], [f64; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const BICUBIC: u32 = 3;
const FILE: &str = "preprocessor_config.json";
/// Most tiles of one picture; their pixels are kept in memory.
const MOST_TILES: u32 = 64;

/// What the file says; what it leaves out is the family's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    size: Option<Size>,
    crop_size: Option<Size>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_pad: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    resample: Option<u32>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    image_grid_pinpoints: Option<Vec<(u32, u32)>>,
    min_patches: Option<u32>,
    max_patches: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(u32),
    Shortest { shortest_edge: u32 },
    Sides { height: u32, width: u32 },
}

impl Size {
    /// The one number of a square or of a shortest edge.
    fn edge(self) -> Option<u32> {
        match self {
            Self::Side(edge) | Self::Shortest { shortest_edge: edge } => Some(edge),
            Self::Sides { height, width } => (height == width).then_some(height),
        }
    }
}

#[derive(Deserialize)]
struct Nested {
    image_processor: Option<Settings>,
}

impl Settings {
    /// Of `checkpoint`. The original repositories' code takes all values from `config.json` and the tower, and
    /// ignores the file where there is one.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        if checkpoint.config().dialect == Dialect::Original {
            return Ok(Self::default());
        }
        if let Some(settings) = checkpoint.json(FILE)? {
            return Ok(settings);
        }
        let nested = checkpoint.json::<Nested>("processor_config.json")?;
        Ok(nested.and_then(|nested| nested.image_processor).unwrap_or_default())
    }

    /// Whether all steps are wanted and the tiles are the vision tower's, of `side` pixels.
    pub fn check(&self, family: Family, side: u32) -> Result<(), CheckpointError> {
        let clip = family != Family::InternVl;
        for (field, value) in [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop.filter(|_| clip)),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ] {
            if value == Some(false) {
                return Err(unsupported(format!("{field} = false"), "true"));
            }
        }
        if self.resample.is_some_and(|r| r != BICUBIC) {
            return Err(unsupported("another resampling than bicubic".to_owned(), "resample = 3"));
        }
        let crop = self.crop_size.filter(|_| clip);
        // Only LLaVA-1.5 resizes to another size than that of the tile.
        let resized = self.size.filter(|_| family != Family::Llava);
        for (field, value) in [("crop_size", crop), ("size", resized)] {
            if let Some(other) = value.filter(|value| value.edge() != Some(side)) {
                return Err(unsupported(format!("{field} {other:?}"), "the image_size of vision_config"));
            }
        }
        Ok(())
    }

    /// What the shortest edge is resized to before the crop.
    pub fn shortest_edge(&self, side: u32) -> Result<u32, CheckpointError> {
        match self.size.map_or(Some(side), Size::edge) {
            Some(edge) if (side..=4 * side).contains(&edge) => Ok(edge),
            _ => Err(unsupported(
                format!("the size {:?}", self.size),
                "one shortest_edge between one and four times the image_size",
            )),
        }
    }

    /// Whether pictures are padded to a square rather than cropped.
    pub fn pads(&self) -> bool {
        self.do_pad.unwrap_or(false)
    }

    /// Sizes of grids as (height, width); those of the file before those of the configuration.
    pub fn pinpoints(&self, configured: &[(u32, u32)], side: u32) -> Result<Vec<(u32, u32)>, CheckpointError> {
        let pinpoints = self.image_grid_pinpoints.as_deref().unwrap_or(configured);
        let whole = |edge: u32| edge > 0 && edge.is_multiple_of(side);
        let fits = |&(h, w): &(u32, u32)| {
            whole(h) && whole(w) && u64::from(h / side) * u64::from(w / side) < u64::from(MOST_TILES)
        };
        if (1..=MOST_TILES as usize).contains(&pinpoints.len()) && pinpoints.iter().all(fits) {
            Ok(pinpoints.to_vec())
        } else {
            Err(unsupported(
                format!("image_grid_pinpoints {pinpoints:?}"),
                "1 to 64 sizes, each a multiple of the image_size, of at most 63 tiles",
            ))
        }
    }

    /// Fewest and most tiles; those of the file before those of the configuration.
    pub fn tiles(&self, min: u32, max: u32) -> Result<(u32, u32), CheckpointError> {
        let (min, max) = (self.min_patches.unwrap_or(min), self.max_patches.unwrap_or(max));
        if 1 <= min && min <= max && max < MOST_TILES {
            Ok((min, max))
        } else {
            Err(unsupported(format!("{min} to {max} tiles a picture"), "1 to 63 tiles"))
        }
    }

    /// The arithmetic from bytes to values.
    pub fn normaliser(&self, family: Family) -> Result<Normaliser, CheckpointError> {
        let (mean, std) = if family == Family::InternVl { IMAGENET } else { CLIP };
        let (mean, std) = (self.image_mean.unwrap_or(mean), self.image_std.unwrap_or(std));
        let rescale = self.rescale_factor.unwrap_or(1.0 / 255.0);
        let finite = mean.iter().chain(&std).chain([&rescale]).all(|v| v.is_finite() && v.abs() < 1e6);
        if finite && std.iter().all(|s| s.abs() > 1e-6) {
            Ok(Normaliser::new(rescale, mean, std))
        } else {
            Err(unsupported(format!("the mean {mean:?} and deviation {std:?}"), "finite numbers, no deviation of 0"))
        }
    }
}

fn unsupported(what: String, supported: &'static str) -> CheckpointError {
    CheckpointError::Unsupported { file: FILE, what, supported }
}

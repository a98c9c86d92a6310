//! How a family of models cuts a picture: for LLaVA-1.5 one square, resized and cropped or padded.
//! Values come from the checkpoint's `preprocessor_config.json`.

use image::{Rgb, RgbImage, imageops};
use serde::Deserialize;
use vlm_catalog::architecture::VisionConfig;

use super::resize::{Crop, resize};
use super::{ImageError, ImageLimits, PreparedImage, decode};
use crate::checkpoint::{Checkpoint, CheckpointError};

const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
const BICUBIC: u32 = 3;
const FILE: &str = "preprocessor_config.json";

/// Preprocessing of one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    side: u32,
    resize_to: u32,
    pad: bool,
    rescale: f64,
    mean: [f64; 3],
    std: [f64; 3],
    tokens_per_tile: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
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
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(u32),
    Shortest { shortest_edge: u32 },
    Sides { height: u32, width: u32 },
}

#[derive(Deserialize)]
struct Nested {
    image_processor: Option<Raw>,
}

impl Preprocessing {
    /// Reads the files of `checkpoint`; what they leave out is CLIP's.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let raw = match checkpoint.json::<Raw>(FILE)? {
            Some(raw) => raw,
            None => {
                checkpoint.json::<Nested>("processor_config.json")?.and_then(|n| n.image_processor).unwrap_or_default()
            }
        };
        Self::from_raw(&raw, &checkpoint.config().vision)
    }

    fn from_raw(raw: &Raw, vision: &VisionConfig) -> Result<Self, CheckpointError> {
        for (field, value) in [
            ("do_resize", raw.do_resize),
            ("do_center_crop", raw.do_center_crop),
            ("do_rescale", raw.do_rescale),
            ("do_normalize", raw.do_normalize),
        ] {
            if value == Some(false) {
                return Err(unsupported(format!("{field} = false"), "true"));
            }
        }
        if raw.resample.is_some_and(|r| r != BICUBIC) {
            return Err(unsupported("another resampling than bicubic".to_owned(), "resample = 3"));
        }
        let side = vision.image_size as u32;
        match raw.crop_size {
            None => {}
            Some(Size::Side(s) | Size::Sides { height: s, width: _ }) if s == side => {}
            Some(ref other) => {
                return Err(unsupported(format!("crop_size {other:?}"), "the image_size of vision_config"));
            }
        }
        let resize_to = match raw.size {
            None => side,
            Some(Size::Side(s) | Size::Shortest { shortest_edge: s }) => s,
            Some(Size::Sides { height, width }) if height == width => height,
            Some(ref other) => return Err(unsupported(format!("size {other:?}"), "one shortest_edge")),
        };
        if resize_to < side || resize_to > 4 * side {
            return Err(unsupported(format!("the size {resize_to}"), "between one and four times the image_size"));
        }
        let (mean, std) = (raw.image_mean.unwrap_or(CLIP_MEAN), raw.image_std.unwrap_or(CLIP_STD));
        let rescale = raw.rescale_factor.unwrap_or(1.0 / 255.0);
        if std.iter().any(|s| s.abs() < 1e-6) || !mean.iter().chain(&std).chain([&rescale]).all(|v| v.is_finite()) {
            return Err(unsupported(
                format!("the mean {mean:?} and deviation {std:?}"),
                "finite numbers, no deviation of 0",
            ));
        }
        let tokens_per_tile = vision.tokens_per_tile();
        Ok(Self { side, resize_to, pad: raw.do_pad.unwrap_or(false), rescale, mean, std, tokens_per_tile })
    }

    /// Decodes, cuts and normalises one picture.
    pub fn prepare(&self, bytes: &[u8], limits: &ImageLimits) -> Result<PreparedImage, ImageError> {
        let image = decode::decode(bytes, limits)?;
        let image = if self.pad { self.padded(image) } else { image };
        let tile = self.cropped(&image);
        let side = self.side as usize;
        Ok(PreparedImage {
            tiles: 1,
            height: side,
            width: side,
            pixels: self.normalised(&tile),
            tokens: self.tokens_per_tile,
            kept: None,
        })
    }

    /// The picture in the middle of a square of the mean colour.
    fn padded(&self, image: RgbImage) -> RgbImage {
        let (width, height) = image.dimensions();
        if width == height {
            return image;
        }
        let side = width.max(height);
        let mut square = RgbImage::from_pixel(side, side, Rgb(self.mean.map(|m| (m * 255.0) as u8)));
        imageops::replace(&mut square, &image, i64::from((side - width) / 2), i64::from((side - height) / 2));
        square
    }

    /// Shortest edge to `resize_to`, then the square in the middle.
    fn cropped(&self, image: &RgbImage) -> RgbImage {
        let (width, height) = image.dimensions();
        let (short, long) = (width.min(height), width.max(height));
        let long = (u64::from(self.resize_to) * u64::from(long) / u64::from(short)) as u32;
        let (width, height) = if width <= height { (self.resize_to, long) } else { (long, self.resize_to) };
        let crop =
            Crop { x: (width - self.side) / 2, y: (height - self.side) / 2, width: self.side, height: self.side };
        resize(image, width, height, crop)
    }

    /// `[3, height, width]` of `(rescale · value − mean) / deviation`.
    fn normalised(&self, tile: &RgbImage) -> Vec<f32> {
        let channel = |c: usize| {
            let (mean, std) = (self.mean[c], self.std[c]);
            let table: Vec<f32> = (0..256).map(|v| ((f64::from(v) * self.rescale - mean) / std) as f32).collect();
            tile.as_raw().iter().skip(c).step_by(3).map(move |v| table[usize::from(*v)])
        };
        (0..3).flat_map(channel).collect()
    }
}

fn unsupported(what: String, supported: &'static str) -> CheckpointError {
    CheckpointError::Unsupported { file: FILE, what, supported }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip28() -> Preprocessing {
        Preprocessing {
            side: 28,
            resize_to: 28,
            pad: false,
            rescale: 1.0 / 255.0,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            tokens_per_tile: 16,
        }
    }

    #[test]
    fn a_tall_and_a_wide_picture_keep_their_middle() {
        let preprocessing = clip28();
        for (width, height) in [(56, 84), (84, 56), (28, 28), (1, 200), (200, 1), (5, 3)] {
            let tile = preprocessing.cropped(&RgbImage::from_pixel(width, height, Rgb([9, 8, 7])));
            assert_eq!(tile.dimensions(), (28, 28), "{width}x{height}");
            assert!(tile.pixels().all(|p| p.0 == [9, 8, 7]));
        }
    }

    #[test]
    fn padding_centres_the_picture_on_the_mean_colour() {
        let preprocessing = Preprocessing { pad: true, ..clip28() };
        let square = preprocessing.padded(RgbImage::from_pixel(3, 6, Rgb([1, 2, 3])));
        assert_eq!(square.dimensions(), (6, 6));
        assert_eq!(square.get_pixel(0, 0).0, [122, 116, 104]);
        assert_eq!(square.get_pixel(1, 0).0, [1, 2, 3]);
        assert_eq!(square.get_pixel(4, 0).0, [122, 116, 104]);
    }

    #[test]
    fn pixels_are_planes_of_normalised_values() {
        let pixels = clip28().normalised(&RgbImage::from_pixel(28, 28, Rgb([255, 0, 128])));
        assert_eq!(pixels.len(), 3 * 28 * 28);
        assert!((pixels[0] - 1.930_336).abs() < 1e-5 && (pixels[28 * 28] + 1.752_097).abs() < 1e-5);
        assert!((pixels[2 * 28 * 28] - (128.0 / 255.0 - 0.408_210_73) / 0.275_777_1).abs() < 1e-5);
    }
}

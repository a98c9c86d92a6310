//! Bicubic resampling bit-equal to Pillow's (before version 13): two passes, horizontal first, each
//! rounded to 8 bits, coefficients in fixed point. Computes only the part that a crop keeps.

use image::RgbImage;

const FRACTION_BITS: u32 = 32 - 8 - 2;

/// A rectangle of the resized picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Resizes `source` to `width` by `height` and returns the part `crop` of it.
pub fn resize(source: &RgbImage, width: u32, height: u32, crop: Crop) -> RgbImage {
    let across = Pass::new(source.width(), width, crop.x, crop.width);
    let down = Pass::new(source.height(), height, crop.y, crop.height);
    let (first, last) = down.inputs();
    let middle = horizontal(source, &across, first, last);
    vertical(&middle, &down, first)
}

/// One output pixel: `weights` of the inputs from `start` on.
struct Tap {
    start: u32,
    weights: Vec<i32>,
}

/// The taps of one direction; of an unchanged size they copy.
struct Pass {
    taps: Vec<Tap>,
}

impl Pass {
    fn new(input: u32, output: u32, from: u32, count: u32) -> Self {
        let copy = |i| Tap { start: i, weights: vec![1 << FRACTION_BITS] };
        let taps = (from..from + count).map(|i| if input == output { copy(i) } else { tap(input, output, i) });
        Self { taps: taps.collect() }
    }

    /// First and one past the last input that any output needs.
    fn inputs(&self) -> (u32, u32) {
        let first = self.taps.iter().map(|tap| tap.start).min().unwrap_or(0);
        let last = self.taps.iter().map(|tap| tap.start + tap.weights.len() as u32).max().unwrap_or(0);
        (first, last)
    }
}

fn tap(input: u32, output: u32, index: u32) -> Tap {
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let centre = (f64::from(index) + 0.5) * scale;
    let start = (centre - support + 0.5).max(0.0) as u32;
    let end = ((centre + support + 0.5) as u32).min(input);
    let weights: Vec<f64> = (start..end).map(|j| cubic((f64::from(j) - centre + 0.5) / filter_scale)).collect();
    let sum: f64 = weights.iter().sum();
    // `round` rounds halves away from zero, as the reference does.
    let fixed = |weight: &f64| (weight / sum * f64::from(1 << FRACTION_BITS)).round() as i32;
    Tap { start, weights: weights.iter().map(fixed).collect() }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rows `first..last` of `source`, resampled across.
fn horizontal(source: &RgbImage, pass: &Pass, first: u32, last: u32) -> RgbImage {
    let stride = source.width() as usize * 3;
    let mut out = Vec::with_capacity(pass.taps.len() * (last - first) as usize * 3);
    for row in source.as_raw().chunks_exact(stride).skip(first as usize).take((last - first) as usize) {
        for tap in &pass.taps {
            let pixels = &row[tap.start as usize * 3..];
            out.extend((0..3).map(|c| blend(tap, |j| pixels[j * 3 + c])));
        }
    }
    RgbImage::from_raw(pass.taps.len() as u32, last - first, out).unwrap_or_default()
}

/// `middle` resampled downwards; its first row is row `first` of the source.
fn vertical(middle: &RgbImage, pass: &Pass, first: u32) -> RgbImage {
    let stride = middle.width() as usize * 3;
    let pixels = middle.as_raw();
    let mut out = Vec::with_capacity(stride * pass.taps.len());
    for tap in &pass.taps {
        let top = (tap.start - first) as usize * stride;
        out.extend((0..stride).map(|x| blend(tap, |j| pixels[top + j * stride + x])));
    }
    RgbImage::from_raw(middle.width(), pass.taps.len() as u32, out).unwrap_or_default()
}

fn blend(tap: &Tap, pixel: impl Fn(usize) -> u8) -> u8 {
    let half = 1i32 << (FRACTION_BITS - 1);
    let sum =
        tap.weights.iter().enumerate().fold(half, |sum, (j, w)| sum.wrapping_add(w.wrapping_mul(i32::from(pixel(j)))));
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pairs() -> Vec<(RgbImage, RgbImage)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tables");
        let mut pairs = Vec::new();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some((number, _)) = name.split_once("_pil_bicubic_") {
                let open = |path: &Path| image::open(path).unwrap().to_rgb8();
                pairs.push((open(&dir.join(format!("{number}_src.png"))), open(&path)));
            }
        }
        pairs
    }

    fn whole(image: &RgbImage) -> Crop {
        Crop { x: 0, y: 0, width: image.width(), height: image.height() }
    }

    #[test]
    fn every_byte_equals_pillows() {
        let pairs = pairs();
        assert_eq!(pairs.len(), 8);
        for (source, expected) in pairs {
            let got = resize(&source, expected.width(), expected.height(), whole(&expected));
            let different = got.as_raw().iter().zip(expected.as_raw()).filter(|(a, b)| a != b).count();
            assert_eq!(different, 0, "{:?} to {:?}", source.dimensions(), expected.dimensions());
        }
    }

    #[test]
    fn a_crop_is_a_part_of_the_whole() {
        for (source, expected) in pairs() {
            let (w, h) = expected.dimensions();
            let crop = Crop { x: w / 3, y: h / 4, width: w - w / 3 - w / 5, height: h - h / 4 - h / 6 };
            let got = resize(&source, w, h, crop);
            let want = image::imageops::crop_imm(&expected, crop.x, crop.y, crop.width, crop.height).to_image();
            assert!(got == want, "{crop:?} of {:?}", expected.dimensions());
        }
    }
}

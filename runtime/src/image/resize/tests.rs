//! Against Pillow's own bytes, and the wide instructions against the portable ones.

use std::path::Path;

use proptest::prelude::*;

use super::*;

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

fn resized_by(passes: Passes, source: &Source, size: (u32, u32), crop: Crop) -> RgbImage {
    let mut pixels = Vec::new();
    resize_with(passes, source, size, crop, |[r, g, b]| {
        pixels.extend(r.iter().zip(g).zip(b).flat_map(|((r, g), b)| [*r, *g, *b]));
    });
    RgbImage::from_raw(crop.width, crop.height, pixels).unwrap()
}

/// By both implementations, which must agree.
fn resized(source: &Source, size: (u32, u32), crop: Crop) -> RgbImage {
    let image = resized_by(Passes::new(), source, size, crop);
    assert!(image == resized_by(Passes::Portable, source, size, crop), "{size:?} {crop:?}");
    image
}

fn whole((width, height): (u32, u32)) -> Crop {
    Crop { x: 0, y: 0, width, height }
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = width * 31 + height;
    RgbImage::from_fn(width, height, |_, _| {
        image::Rgb([0; 3].map(|_: u8| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 1 { 255 } else { (state >> 16) as u8 }
        }))
    })
}

#[test]
fn every_byte_equals_pillows() {
    let pairs = pairs();
    assert_eq!(pairs.len(), 8);
    for (source, expected) in pairs {
        let size = expected.dimensions();
        let got = resized(&Source::new(&source), size, whole(size));
        let different = got.as_raw().iter().zip(expected.as_raw()).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "{:?} to {size:?}", source.dimensions());
    }
}

#[test]
fn a_crop_is_a_part_of_the_whole() {
    for (source, expected) in pairs() {
        let (w, h) = expected.dimensions();
        let crop = Crop { x: w / 3, y: h / 4, width: w - w / 3 - w / 5, height: h - h / 4 - h / 6 };
        let got = resized(&Source::new(&source), (w, h), crop);
        let want = image::imageops::crop_imm(&expected, crop.x, crop.y, crop.width, crop.height).to_image();
        assert!(got == want, "{crop:?} of {:?}", expected.dimensions());
    }
}

#[test]
fn a_squared_source_equals_a_picture_pasted_on_a_square() {
    for (width, height) in [(31, 12), (12, 31), (9, 9), (40, 1), (1, 41)] {
        let (image, colour) = (noise(width, height), [122, 116, 104]);
        let side = width.max(height);
        let mut square = RgbImage::from_pixel(side, side, image::Rgb(colour));
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        image::imageops::replace(&mut square, &image, left.into(), top.into());
        for size in [(28, 28), (56, 56), (side, side)] {
            let want = resized(&Source::new(&square), size, whole(size));
            assert!(resized(&Source::squared(&image, colour), size, whole(size)) == want, "{width}x{height} {size:?}");
        }
    }
}

#[test]
fn an_unchanged_size_copies() {
    let image = noise(37, 21);
    assert!(resized(&Source::new(&image), (37, 21), whole((37, 21))) == image);
}

#[test]
fn the_sums_of_very_many_inputs_do_not_overflow() {
    let image = RgbImage::from_fn(30_000, 3, |x, _| image::Rgb([255, if x < 15_000 { 255 } else { 0 }, 0]));
    let got = resized(&Source::new(&image), (4, 2), whole((4, 2)));
    assert_eq!(got.get_pixel(0, 0).0, [255, 255, 0]);
    assert_eq!(got.get_pixel(3, 1).0, [255, 0, 0]);
}

proptest! {
    #[test]
    fn wide_and_portable_instructions_agree(
        (w, h) in (1u32..90, 1u32..90), size in (1u32..90, 1u32..90),
        cut in (0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0),
    ) {
        let part = |all: u32, from: f64, to: f64| {
            let start = (f64::from(all) * from) as u32;
            (start, 1 + (f64::from(all - start - 1) * to) as u32)
        };
        let ((x, width), (y, height)) = (part(size.0, cut.0, cut.1), part(size.1, cut.2, cut.3));
        resized(&Source::new(&noise(w, h)), size, Crop { x, y, width, height });
    }
}

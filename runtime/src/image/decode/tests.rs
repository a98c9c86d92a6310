//! Pictures of every kind, and bytes that are none.

use std::path::Path;

use super::*;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, Rgb};
use proptest::prelude::*;

fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 11) as u8, (x ^ y) as u8]))
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decoded(bytes: &[u8]) -> RgbImage {
    decode(bytes, &ImageLimits::default()).unwrap()
}

/// A PNG that claims to be `width` by `height`, with a correct checksum and no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encode(&DynamicImage::ImageRgb8(pattern(1, 1)), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = bytes[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn lossless_formats_give_the_pixels_back() {
    let image = pattern(13, 9);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        assert!(decoded(&encode(&DynamicImage::ImageRgb8(image.clone()), format)) == image, "{format:?}");
    }
}

#[test]
fn alpha_is_dropped_and_its_colour_kept() {
    let rgba = image::RgbaImage::from_fn(6, 5, |x, y| image::Rgba([x as u8 * 9, y as u8 * 8, 77, (x * y) as u8]));
    let got = decoded(&encode(&DynamicImage::ImageRgba8(rgba.clone()), ImageFormat::Png));
    assert!(got.enumerate_pixels().all(|(x, y, p)| p.0 == rgba.get_pixel(x, y).0[..3]));
}

#[test]
fn sixteen_bits_become_their_high_byte_and_gray_becomes_colour() {
    let deep =
        image::ImageBuffer::from_fn(5, 4, |x, y| image::Rgb([(x * 257 * 40) as u16, (y * 257 * 50) as u16, 257 * 3]));
    let got = decoded(&encode(&DynamicImage::ImageRgb16(deep), ImageFormat::Png));
    assert_eq!(got.get_pixel(3, 2).0, [120, 100, 3]);
    let gray = image::GrayImage::from_fn(5, 4, |x, _| image::Luma([x as u8 * 50]));
    assert_eq!(decoded(&encode(&DynamicImage::ImageLuma8(gray), ImageFormat::Png)).get_pixel(2, 1).0, [100; 3]);
}

#[test]
fn an_animation_is_its_first_frame() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for colour in [[255, 0, 0, 255], [0, 0, 255, 255]] {
        encoder.encode_frame(image::Frame::new(image::RgbaImage::from_pixel(4, 4, image::Rgba(colour)))).unwrap();
    }
    drop(encoder);
    assert_eq!(decoded(&bytes).get_pixel(1, 1).0, [255, 0, 0]);
}

#[test]
fn exif_orientation_turns_the_picture() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    // A little-endian TIFF with the one entry Orientation (0x0112) = 6: turn right by 90 degrees.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    encoder.set_exif_metadata(exif).unwrap();
    let image = RgbImage::from_fn(16, 8, |x, _| if x < 8 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
    encoder.encode(image.as_raw(), 16, 8, ExtendedColorType::Rgb8).unwrap();
    let got = decoded(&bytes);
    assert_eq!(got.dimensions(), (8, 16));
    assert!(got.get_pixel(4, 2).0[0] > 200 && got.get_pixel(4, 13).0[2] > 200);
}

#[test]
fn a_bomb_is_refused_from_its_header() {
    let limits = ImageLimits::default();
    let error = decode(&png_header(60_000, 60_000), &limits).unwrap_err();
    assert_eq!(error, ImageError::TooManyPixels { width: 60_000, height: 60_000, limit: 40_000_000 });
    assert!(error.to_string().contains("60000x60000") && error.to_string().contains("40000000"));
    assert!(matches!(
        decode(&png_header(u32::MAX >> 1, u32::MAX >> 1), &limits),
        Err(ImageError::TooManyPixels { .. } | ImageError::Undecodable { .. })
    ));
    assert!(matches!(decode(&png_header(5000, 2), &limits), Err(ImageError::AspectRatio { limit: 1000, .. })));
    assert!(matches!(decode(&png_header(0, 2), &limits), Err(ImageError::Undecodable { .. })));
}

#[test]
fn too_many_bytes_no_bytes_and_no_picture_are_told_apart() {
    let small = ImageLimits { max_bytes: 10, ..ImageLimits::default() };
    assert_eq!(decode(&[0; 11], &small), Err(ImageError::TooManyBytes { bytes: 11, limit: 10 }));
    assert_eq!(decode(&[], &ImageLimits::default()), Err(ImageError::Empty));
    for (bytes, word) in [
        (&b"hello, this is text"[..], "no known format"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
    ] {
        let error = decode(bytes, &ImageLimits::default()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Every picture of the folder.
fn pictures() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()).collect()
}

proptest! {
    #[test]
    fn pictures_with_wrong_bytes_never_panic(
        picture in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        early in any::<bool>(),
    ) {
        let pictures = pictures();
        let mut bytes = picture.get(&pictures).clone();
        // Headers are where the numbers are.
        let within = if early { bytes.len().min(120) } else { bytes.len() };
        for (at, value) in &changes {
            bytes[at.index(within)] = *value;
        }
        let _ = decode_checked(&bytes, &ImageLimits { max_pixels: 1 << 20, max_bytes: 1 << 20 });
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in 0usize..7) {
        let magics: [&[u8]; 7] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"];
        let bytes = [magics[magic], &bytes].concat();
        let _ = decode_checked(&bytes, &ImageLimits { max_pixels: 1 << 16, max_bytes: 1 << 16 });
    }

    #[test]
    fn truncated_and_flipped_files_never_panic(cut in 0.0f64..1.0, flip in 0.0f64..1.0, bit in 0u32..8, kind in 0usize..6) {
        let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];
        let mut bytes = encode(&DynamicImage::ImageRgb8(pattern(24, 17)), formats[kind]);
        let limits = ImageLimits { max_pixels: 1 << 16, max_bytes: 1 << 20 };
        let keep = (bytes.len() as f64 * cut) as usize;
        let _ = decode_checked(&bytes[..keep], &limits);
        let at = (bytes.len() as f64 * flip) as usize;
        bytes[at] ^= 1 << bit;
        let _ = decode_checked(&bytes, &limits);
    }
}

/// Every picture of the folder against what Pillow makes of it; JPEG decoders differ in rounding.
#[test]
fn pictures_of_every_kind_are_what_the_reference_sees() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures");
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.is_file().then(|| path.file_name().unwrap().to_str().unwrap()) else { continue };
        count += 1;
        let expected = image::open(dir.join(format!("expected/{name}.png"))).unwrap().to_rgb8();
        let tolerance = match name.rsplit_once('.').unwrap() {
            (_, "jpg") | ("jpeg", "tif") | ("lossy", "webp") => 4,
            ("cmyk", "tif") => 1,
            _ => 0,
        };
        match decode(&std::fs::read(&path).unwrap(), &ImageLimits::default()) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(got) if got.dimensions() != expected.dimensions() => {
                wrong.push(format!("{name}: {:?} instead of {:?}", got.dimensions(), expected.dimensions()));
            }
            Ok(got) => {
                let pairs = got.as_raw().iter().zip(expected.as_raw());
                let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if worst > tolerance {
                    wrong.push(format!("{name}: {worst} levels"));
                }
            }
        }
    }
    assert_eq!((count, wrong), (62, Vec::new()));
}

//! Bytes to RGB pixels: the format from the bytes themselves, limits from the header before
//! anything is decoded, EXIF orientation applied, alpha dropped, the first frame of an animation.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

use super::{ImageError, ImageLimits};

/// Longest side over shortest side. Only the part of a picture that is kept is ever resized, so that this bounds
/// no more than the weights of one direction.
const MAX_ASPECT: u32 = 1000;
/// A decoder may need the picture at 16 bits and four channels, and about as much again to work.
const BYTES_PER_PIXEL: u64 = 16;
/// What a header and its colour profile may take, however few pixels there are.
const HEADER_BYTES: u64 = 16 << 20;

/// The pixels of the picture in `bytes`, within `limits`: three channels of 8 bits. Heavy on the CPU.
///
/// # Errors
/// A picture that is broken, of no known format, or beyond `limits`.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() as u64 > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len() as u64, limit: limits.max_bytes });
    }
    // The decoders promise not to panic, but they read what strangers send.
    catch_unwind(AssertUnwindSafe(|| decode_checked(bytes, limits)))
        .unwrap_or_else(|_| Err(undecodable(&"the decoder failed")))
}

fn decode_checked(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| undecodable(&e))?;
    reader.limits(allocating(HEADER_BYTES));
    match reader.format() {
        None => return Err(unknown(bytes)),
        Some(format) if !format.reading_enabled() => {
            return Err(ImageError::UnsupportedFormat { format: format!("{format:?}").to_uppercase() });
        }
        Some(_) => {}
    }
    let mut decoder = reader.into_decoder().map_err(|e| undecodable(&e))?;
    let pixels = check_size(decoder.dimensions(), limits)?;
    let allowed = allocating(HEADER_BYTES.saturating_add(pixels.saturating_mul(BYTES_PER_PIXEL)));
    decoder.set_limits(allowed).map_err(|e| undecodable(&e))?;
    let orientation = decoder.orientation().map_err(|e| undecodable(&e))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| undecodable(&e))?;
    image.apply_orientation(orientation);
    Ok(rgb(image))
}

/// Bytes from which on [`recognise`] knows what a file is.
pub const RECOGNISABLE: usize = 32;

/// Whether a file that begins like this is a picture that can be decoded.
pub fn recognise(beginning: &[u8]) -> Result<(), ImageError> {
    match image::guess_format(beginning) {
        Ok(format) if format.reading_enabled() => Ok(()),
        Ok(format) => Err(ImageError::UnsupportedFormat { format: format!("{format:?}").to_uppercase() }),
        Err(_) => Err(unknown(beginning)),
    }
}

fn allocating(bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(bytes);
    limits
}

/// Eight bits a channel, of sixteen the upper ones, without alpha.
fn rgb(image: DynamicImage) -> RgbImage {
    let high = |value: u16| (value >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let bytes: Vec<u8> = match &image {
        DynamicImage::ImageLuma16(gray) => gray.as_raw().iter().flat_map(|v| [high(*v); 3]).collect(),
        DynamicImage::ImageLumaA16(gray) => gray.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(deep) => deep.as_raw().iter().map(|v| high(*v)).collect(),
        DynamicImage::ImageRgba16(deep) => deep.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect(),
        _ => return image.into_rgb8(),
    };
    RgbImage::from_raw(width, height, bytes).unwrap_or_default()
}

/// The number of pixels, if they are few enough.
fn check_size((width, height): (u32, u32), limits: &ImageLimits) -> Result<u64, ImageError> {
    if width == 0 || height == 0 {
        return Err(undecodable(&"it has no pixels"));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        return Err(ImageError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    if width.max(height).div_ceil(width.min(height)) > MAX_ASPECT {
        return Err(ImageError::AspectRatio { width, height, limit: MAX_ASPECT });
    }
    Ok(pixels)
}

/// Names formats that people do send, so that the answer says more than "unknown".
fn unknown(bytes: &[u8]) -> ImageError {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).to_lowercase();
    let brand = bytes.get(4..12).unwrap_or_default();
    let format = if text.starts_with("%pdf") {
        "PDF"
    } else if text.contains("<svg") {
        "SVG"
    } else if brand.starts_with(b"ftyp") {
        match &brand[4..] {
            b"avif" | b"avis" => "AVIF",
            b"heic" | b"heix" | b"mif1" | b"msf1" | b"hevc" => "HEIC",
            _ => return undecodable(&"it is a video"),
        }
    } else {
        return undecodable(&"its bytes are of no known format");
    };
    ImageError::UnsupportedFormat { format: format.to_owned() }
}

fn undecodable(reason: &impl ToString) -> ImageError {
    ImageError::Undecodable { reason: reason.to_string() }
}

#[cfg(test)]
mod tests;

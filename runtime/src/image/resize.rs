//! Bicubic resampling bit-equal to Pillow's (before version 13): two passes, horizontal first, each
//! rounded to 8 bits. Computes only the part that a crop keeps, and hands it out row by row.

mod passes;
mod taps;

use image::RgbImage;

use passes::{Passes, Strip};
use taps::Taps;

/// Rows of the horizontal pass are computed in groups of this many.
const GROUP: usize = 4;
/// Columns of the vertical pass are computed in groups of this many.
const LANES: usize = 16;

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

/// A picture on a canvas of one colour, which is never built: only the rows that are read are put together.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    image: &'a RgbImage,
    width: u32,
    height: u32,
    left: u32,
    top: u32,
    colour: [u8; 3],
}

impl<'a> Source<'a> {
    /// The picture itself.
    pub fn new(image: &'a RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self { image, width, height, left: 0, top: 0, colour: [0; 3] }
    }

    /// The picture in the middle of a square, the odd pixel at the right or below.
    pub fn squared(image: &'a RgbImage, colour: [u8; 3]) -> Self {
        let (width, height) = image.dimensions();
        let side = width.max(height);
        Self { image, width: side, height: side, left: (side - width) / 2, top: (side - height) / 2, colour }
    }

    /// Whether row `y` is canvas only.
    fn is_blank(&self, y: usize) -> bool {
        y < self.top as usize || y >= self.top as usize + self.image.height() as usize
    }

    /// Writes the RGB pixels of row `y` into `line`, which may be longer.
    fn read(&self, y: usize, line: &mut [u8]) {
        let stride = self.image.width() as usize * 3;
        let pixels =
            if self.is_blank(y) { &[] } else { &self.image.as_raw()[(y - self.top as usize) * stride..][..stride] };
        if pixels.len() < self.width as usize * 3 {
            let whole = line[..self.width as usize * 3].chunks_exact_mut(3);
            whole.for_each(|pixel| pixel.copy_from_slice(&self.colour));
        }
        line[self.left as usize * 3..][..pixels.len()].copy_from_slice(pixels);
    }
}

/// Resizes `source` to `width` by `height` and gives the rows of `crop`, from the first to the last, to `sink`:
/// red, green and blue, `crop.width` bytes each.
pub fn resize(source: &Source, (width, height): (u32, u32), crop: Crop, sink: impl FnMut([&[u8]; 3])) {
    resize_with(Passes::new(), source, (width, height), crop, sink);
}

fn resize_with(
    passes: Passes,
    source: &Source,
    (width, height): (u32, u32),
    crop: Crop,
    mut sink: impl FnMut([&[u8]; 3]),
) {
    let across = Taps::new(source.width, width, crop.x, crop.width);
    let down = Taps::new(source.height, height, crop.y, crop.height);
    let plane = (crop.width as usize).next_multiple_of(LANES);
    let mut window = Window::new(passes, *source, &across, &down, plane);
    let mut row = vec![0; 3 * plane];
    for tap in down.iter() {
        let rows = window.rows(2 * tap.first_pair, 2 * tap.pairs.len());
        passes.down(rows, tap.pairs, &mut row);
        sink([0, 1, 2].map(|c| &row[c * plane..][..crop.width as usize]));
    }
}

/// The rows between the passes, three planes each, of which only those are kept that the next outputs need.
struct Window<'a> {
    passes: Passes,
    source: Source<'a>,
    across: &'a Taps,
    plane: usize,
    strip: Strip,
    rows: Vec<u8>,
    /// Row of the source that is the first in `rows`, and one past the last.
    held: (usize, usize),
    /// A group of rows of canvas only.
    blank: Option<Vec<u8>>,
}

impl<'a> Window<'a> {
    /// More rows than one output needs, so that they are seldom moved.
    const SPARE: usize = 64;

    fn new(passes: Passes, source: Source<'a>, across: &'a Taps, down: &Taps, plane: usize) -> Self {
        let (first, last) = down.inputs();
        let most = (2 * down.length() + Self::SPARE).min(last - first).next_multiple_of(GROUP) + GROUP;
        let rows = vec![0; most * 3 * plane];
        let strip = Strip::new(source.width as usize);
        Self { passes, source, across, plane, strip, rows, held: (first, first), blank: None }
    }

    /// `count` rows from `first` on, which never decreases.
    fn rows(&mut self, first: usize, count: usize) -> &[u8] {
        let stride = 3 * self.plane;
        while self.held.1 < first + count {
            if (self.held.1 + GROUP - self.held.0) * stride > self.rows.len() {
                let kept = (first - self.held.0) * stride..(self.held.1 - self.held.0) * stride;
                self.rows.copy_within(kept, 0);
                self.held.0 = first;
            }
            self.add();
        }
        &self.rows[(first - self.held.0) * stride..][..count * stride]
    }

    /// Computes the next group.
    fn add(&mut self) {
        let (top, height) = (self.held.1, self.source.height as usize);
        let bytes = GROUP * 3 * self.plane;
        let group = &mut self.rows[(top - self.held.0) * 3 * self.plane..][..bytes];
        self.held.1 += GROUP;
        let canvas = top + GROUP <= height && (top..top + GROUP).all(|y| self.source.is_blank(y));
        if let Some(blank) = self.blank.as_ref().filter(|_| canvas) {
            group.copy_from_slice(blank);
            return;
        }
        // Rows below the last have no weight.
        for row in (0..GROUP).filter(|row| top + row < height) {
            self.strip.fill(row, |line| self.source.read(top + row, line));
        }
        self.passes.across(&mut self.strip, self.across, self.plane, group);
        if canvas {
            self.blank = Some(group.to_vec());
        }
    }
}

#[cfg(test)]
mod tests;

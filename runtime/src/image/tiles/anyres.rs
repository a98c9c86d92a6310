//! LLaVA-1.6: the whole picture, then the tiles of the grid that shows most of it and wastes least.

use vlm_catalog::architecture::Dialect;

use super::super::KeptGrid;
use super::super::resize::Crop;
use super::{Plan, View};

/// How fractional sizes of the kept features become whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Cut off.
    Truncate,
    /// Rounded to seven decimal digits, then cut off.
    SevenDigits,
}

impl Rounding {
    /// What a dialect's own code does.
    pub fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Transformers => Self::SevenDigits,
            Dialect::Original => Self::Truncate,
        }
    }

    fn whole(self, value: f64) -> u32 {
        match self {
            Self::Truncate => value as u32,
            Self::SevenDigits => ((value * 1e7).round() / 1e7) as u32,
        }
    }
}

/// The plan for a picture of `size`; a tile has `tile` pixels a side and `grid` rows of features, `base` in all.
pub fn plan(
    size: (u32, u32),
    pinpoints: &[(u32, u32)],
    rounding: Rounding,
    (tile, grid, base): (u32, u32, usize),
) -> Plan {
    let canvas = select(size, pinpoints);
    let tiles = (canvas.0 / tile, canvas.1 / tile);
    let resized = fit(size, canvas);
    let crop = Crop { x: 0, y: 0, width: resized.0, height: resized.1 };
    let at = ((canvas.0 - resized.0) / 2, (canvas.1 - resized.1) / 2);
    let whole = View::squeezed((1, 1), tile, 0);
    let parts = View { squared: false, size: resized, crop, at, tiles, first_tile: 1 };
    let kept = unpad(size, tiles, grid, rounding);
    Plan {
        views: vec![whole, parts],
        tiles: 1 + (tiles.0 * tiles.1) as usize,
        // A newline ends each kept row.
        tokens: base + kept.height * (kept.width + 1),
        kept: Some(kept),
    }
}

/// Width and height of the best of `pinpoints`, which are (height, width): most of the picture's pixels, then
/// the least waste, then the first.
fn select((width, height): (u32, u32), pinpoints: &[(u32, u32)]) -> (u32, u32) {
    let mut best = (0, u64::MAX, (0, 0));
    for &(h, w) in pinpoints {
        let scale = (f64::from(w) / f64::from(width)).min(f64::from(h) / f64::from(height));
        let scaled = (f64::from(width) * scale) as u64 * (f64::from(height) * scale) as u64;
        let effective = scaled.min(u64::from(width) * u64::from(height));
        let wasted = u64::from(w) * u64::from(h) - effective;
        if effective > best.0 || (effective == best.0 && wasted < best.1) {
            best = (effective, wasted, (w, h));
        }
    }
    best.2
}

/// The largest size of the picture's shape within `canvas`.
fn fit((width, height): (u32, u32), canvas: (u32, u32)) -> (u32, u32) {
    let (across, down) = (f64::from(canvas.0) / f64::from(width), f64::from(canvas.1) / f64::from(height));
    if across < down {
        (canvas.0, ((f64::from(height) * across).ceil() as u32).clamp(1, canvas.1))
    } else {
        (((f64::from(width) * down).ceil() as u32).clamp(1, canvas.0), canvas.1)
    }
}

/// The features that are left when those of the padding have been cut away.
fn unpad((width, height): (u32, u32), (columns, rows): (u32, u32), grid: u32, rounding: Rounding) -> KeptGrid {
    let (across, down) = (columns * grid, rows * grid);
    let (w, h) = (f64::from(width), f64::from(height));
    let (top, left) = if w / h > f64::from(across) / f64::from(down) {
        let kept = rounding.whole(h * (f64::from(across) / w));
        (down.saturating_sub(kept) / 2, 0)
    } else {
        let kept = rounding.whole(w * (f64::from(down) / h));
        (0, across.saturating_sub(kept) / 2)
    };
    KeptGrid {
        tile_rows: rows as usize,
        tile_columns: columns as usize,
        top: top as usize,
        left: left as usize,
        height: (down - 2 * top) as usize,
        width: (across - 2 * left) as usize,
    }
}

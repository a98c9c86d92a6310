//! How LLaVA-1.6 puts a picture's rows together: the whole picture, then the kept part of the grid of tiles
//! line by line, each line ended by a learned row.

use candle_core::{Result, Tensor, bail};

use crate::image::KeptGrid;
use crate::ops::gather;

/// `projected` (`[tiles · side², width]`, the whole picture first) to the rows of the decoder.
pub fn pack(projected: &Tensor, kept: &KeptGrid, newline: &Tensor, side: usize) -> Result<Tensor> {
    let (rows, width) = projected.dims2()?;
    let (tile_rows, tile_columns) = (kept.tile_rows, kept.tile_columns);
    let base = side * side;
    if rows != base * (1 + tile_rows * tile_columns) {
        bail!("{rows} rows are not those of a picture and {tile_rows} x {tile_columns} tiles of {base}")
    }
    if kept.top + kept.height > tile_rows * side || kept.left + kept.width > tile_columns * side {
        bail!("the kept part {kept:?} is larger than its grid of tiles of {side} x {side} rows")
    }
    if kept.height == 0 || kept.width == 0 {
        // The rows of the tiles that are left out would be kept with those of the whole picture.
        return projected.narrow(0, 0, base)?.force_contiguous();
    }
    let mut order: Vec<usize> = (0..base).collect();
    for line in kept.top..kept.top + kept.height {
        for column in kept.left..kept.left + kept.width {
            let tile = 1 + line / side * tile_columns + column / side;
            order.push(tile * base + line % side * side + column % side);
        }
        order.push(rows);
    }
    let order: Vec<u32> = order.into_iter().map(|row| row as u32).collect();
    gather(&Tensor::cat(&[projected, &newline.reshape((1, width))?], 0)?, &order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const END: f32 = -1.0;

    /// Tiles of 2 × 2 rows; the number is 10 · tile + place in the tile.
    fn packed(kept: KeptGrid) -> Result<Vec<f32>> {
        let tiles = 1 + kept.tile_rows * kept.tile_columns;
        let rows: Vec<f32> = (0..tiles).flat_map(|tile| (0..4).map(move |n| (10 * tile + n) as f32)).collect();
        let rows = Tensor::from_vec(rows, (4 * tiles, 1), &Device::Cpu)?;
        let newline = Tensor::new(&[END], &Device::Cpu)?;
        pack(&rows, &kept, &newline, 2)?.flatten_all()?.to_vec1()
    }

    const GRID: KeptGrid = KeptGrid { tile_rows: 1, tile_columns: 2, top: 0, left: 0, height: 2, width: 4 };

    #[test]
    fn lines_run_across_tiles_and_end_in_the_newline() {
        let whole = [0.0, 1.0, 2.0, 3.0];
        let both = [10.0, 11.0, 20.0, 21.0, END, 12.0, 13.0, 22.0, 23.0, END];
        assert_eq!(packed(GRID).unwrap(), [&whole[..], &both].concat());
        let part = KeptGrid { top: 1, left: 1, height: 1, width: 2, ..GRID };
        assert_eq!(packed(part).unwrap(), [&whole[..], &[13.0, 22.0, END]].concat());
        assert_eq!(packed(KeptGrid { height: 0, ..GRID }).unwrap(), whole);
    }

    #[test]
    fn parts_beyond_the_grid_are_refused() {
        assert!(packed(KeptGrid { top: 1, ..GRID }).is_err());
        assert!(packed(KeptGrid { left: 1, ..GRID }).is_err());
    }
}

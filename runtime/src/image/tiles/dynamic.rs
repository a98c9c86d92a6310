//! `InternVL`: the grid of tiles whose aspect ratio is closest to the picture's.

/// Columns and rows of the best grid of `min` to `max` tiles of `side` pixels. Of equally close ones a later,
/// larger one wins when the picture has more than half its pixels.
pub fn grid((width, height): (u32, u32), min: u32, max: u32, side: u32) -> (u32, u32) {
    let mut grids: Vec<(u32, u32)> = (1..=max).flat_map(|c| (1..=max / c).map(move |r| (c, r))).collect();
    grids.retain(|(columns, rows)| columns * rows >= min);
    grids.sort_by_key(|(columns, rows)| columns * rows);
    let ratio = f64::from(width) / f64::from(height);
    let pixels = f64::from(width) * f64::from(height);
    let tile = f64::from(side) * f64::from(side);
    let mut best = ((1, 1), f64::INFINITY);
    for (columns, rows) in grids {
        let difference = (ratio - f64::from(columns) / f64::from(rows)).abs();
        if difference < best.1 {
            best = ((columns, rows), difference);
        } else if difference.total_cmp(&best.1).is_eq() && pixels > 0.5 * tile * f64::from(columns * rows) {
            best.0 = (columns, rows);
        }
    }
    best.0
}

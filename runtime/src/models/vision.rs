//! What the vision towers share: the stem that makes rows of patches, attention within a tile, and the
//! squares of patches that are joined behind the tower.

use candle_core::{Result, Tensor};
use vlm_catalog::architecture::{Tower, VisionConfig};
use vlm_catalog::footprint::{GPU_TILES_AT_A_TIME, TILES_AT_A_TIME};

use super::clip::ClipTower;
use super::intern_vit::InternVit;
use super::{Loading, start};
use crate::checkpoint::{CheckpointError, TowerTensors};
use crate::ops::{Linear, gather, patches, stem};

/// Tiles that go through a tower at a time on a CPU, where attention's scores are the largest tensors of a request, and on a
/// GPU, which never has them.
const TILES: [usize; 2] = [TILES_AT_A_TIME as usize, GPU_TILES_AT_A_TIME as usize];

/// Numbers in 16 bits that a GPU reads at a time: rows of patches are of so many.
const EVEN: usize = 8;

/// A vision tower and the joining of its rows.
pub struct VisionTower {
    config: VisionConfig,
    stem: Stem,
    layers: Layers,
}

enum Layers {
    Clip(ClipTower),
    InternVit(InternVit),
}

impl VisionTower {
    /// Loads the stem and the layers that are used.
    pub fn load(tensors: &TowerTensors<'_>, loading: &mut Loading) -> std::result::Result<Self, CheckpointError> {
        let layers = match tensors.config().tower {
            Tower::Clip => Layers::Clip(ClipTower::load(tensors, loading)?),
            Tower::InternVit { .. } => Layers::InternVit(InternVit::load(tensors, loading)?),
        };
        Ok(Self { config: tensors.config().clone(), stem: Stem::load(tensors, loading)?, layers })
    }

    /// Pixels `[tiles, 3, side, side]` to features `[tiles, rows, width · shuffle²]`, the projector's input.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let tiles = pixels.dim(0)?;
        let some = TILES[usize::from(!pixels.device().is_cpu())];
        let parts = (0..tiles)
            .step_by(some)
            .map(|first| self.some(&pixels.narrow(0, first, some.min(tiles - first))?, usize::MAX))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)
    }

    /// As [`Self::forward`], by the first layer alone: every kernel that so many tiles need, in little time.
    pub fn first_layer(&self, pixels: &Tensor) -> Result<Tensor> {
        self.some(pixels, 1)
    }

    fn some(&self, pixels: &Tensor, layers: usize) -> Result<Tensor> {
        let x = self.stem.forward(pixels)?;
        let x = match &self.layers {
            Layers::Clip(tower) => tower.forward(x, layers)?,
            Layers::InternVit(tower) => tower.forward(x, layers)?,
        };
        let patches = self.config.grid() * self.config.grid();
        let x = if self.config.drop_class_token { without_class(&x, patches)? } else { x };
        if self.config.shuffle == 1 { Ok(x) } else { join_squares(&x, self.config.grid(), self.config.shuffle) }
    }
}

/// From pixels to the first layer's input.
struct Stem {
    patches: Linear,
    class: Tensor,
    positions: Tensor,
    grid: usize,
    patch: usize,
}

impl Stem {
    fn load(tensors: &TowerTensors<'_>, loading: &mut Loading) -> std::result::Result<Self, CheckpointError> {
        let patches = loading.linear(&tensors.patches())?;
        Ok(Self {
            patches: if loading.device().is_cpu() { patches } else { patches.padded(EVEN).map_err(|e| start(&e))? },
            class: loading.vector(&tensors.class()?)?,
            positions: loading.vector(&tensors.positions()?)?,
            grid: tensors.config().grid(),
            patch: tensors.config().patch_size,
        })
    }

    /// Pixels `[tiles, 3, side, side]` to `[tiles, 1 + patches, width]`, the class token first.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (tiles, places) = (pixels.dim(0)?, self.grid * self.grid);
        let rows = patches(pixels, self.patch, self.patches.inputs()?, self.patches.takes())?;
        let rows = self.patches.forward(&rows)?;
        let width = rows.dim(1)?;
        stem(&rows.reshape((tiles, places, width))?, &self.class, &self.positions)
    }
}

/// The rows of patches alone.
fn without_class(x: &Tensor, patches: usize) -> Result<Tensor> {
    let (tiles, rows, width) = x.dims3()?;
    let kept: Vec<u32> = (0..tiles).flat_map(|tile| (1..=patches).map(move |n| (tile * rows + n) as u32)).collect();
    gather(&x.reshape((tiles * rows, width))?, &kept)?.reshape((tiles, patches, width))
}

/// The three parts of `[rows, 3 · width]`; their rows are parts of the longer ones.
pub(super) fn thirds(qkv: &Tensor) -> Result<[Tensor; 3]> {
    let width = qkv.dim(1)? / 3;
    let part = |n| qkv.narrow(1, n * width, width);
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Squares of `side` patches as one row each, its channels ordered by row, column, channel of the square:
/// `[tiles, grid², width]` to `[tiles, (grid ÷ side)², side² · width]`.
fn join_squares(x: &Tensor, grid: usize, side: usize) -> Result<Tensor> {
    let (tiles, patches, width) = x.dims3()?;
    let half = grid / side;
    let mut order = Vec::with_capacity(tiles * patches);
    for tile in 0..tiles {
        for (top, left) in (0..half).flat_map(|top| (0..half).map(move |left| (side * top, side * left))) {
            let square = (0..side).flat_map(|row| (0..side).map(move |column| (top + row) * grid + left + column));
            order.extend(square.map(|patch| (tile * patches + patch) as u32));
        }
    }
    let rows = gather(&x.reshape((tiles * patches, width))?, &order)?;
    rows.reshape((tiles, half * half, side * side * width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn squares_are_joined_row_by_row() {
        // 4 × 4 patches of 2 channels; the number is 10 · patch + channel.
        let values: Vec<f32> = (0..16).flat_map(|patch| [10.0 * patch as f32, 10.0 * patch as f32 + 1.0]).collect();
        let x = Tensor::from_vec(values, (1, 16, 2), &Device::Cpu).unwrap();
        let joined: Vec<Vec<Vec<f32>>> = join_squares(&x, 4, 2).unwrap().to_vec3().unwrap();
        assert_eq!(joined[0][0], [0.0, 1.0, 10.0, 11.0, 40.0, 41.0, 50.0, 51.0]);
        assert_eq!(joined[0][1], [20.0, 21.0, 30.0, 31.0, 60.0, 61.0, 70.0, 71.0]);
        assert_eq!(joined[0][2][..2], [80.0, 81.0]);
    }
}

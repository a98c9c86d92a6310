//! The first rows of a vision tower: the class token, then the patches of each tile, with learned positions
//! (Dosovitskiy et al. 2021).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, Kernel, STEM, launch};

/// `patches` (`[tiles, patches, width]`), the class token (`width` numbers) and `positions` (`1 + patches` times
/// `width` numbers) to `[tiles, 1 + patches, width]`.
pub fn stem(patches: &Tensor, class: &Tensor, positions: &Tensor) -> Result<Tensor> {
    patches.apply_op3_no_bwd(class, positions, &Stem)
}

struct Stem;

impl Stem {
    /// Tiles, rows of each, width.
    fn dims(patches: &Layout, class: &Layout, positions: &Layout) -> Result<(usize, usize, usize)> {
        let (tiles, patches, width) = patches.shape().dims3()?;
        let rows = patches + 1;
        if patches == 0
            || width == 0
            || class.shape().elem_count() != width
            || positions.shape().elem_count() != rows * width
        {
            bail!("{:?} and {:?} do not fit {patches} patches of {width} numbers", class.shape(), positions.shape())
        }
        Ok((tiles, rows, width))
    }
}

impl CustomOp3 for Stem {
    fn name(&self) -> &'static str {
        "stem"
    }

    fn cpu_fwd(
        &self,
        patches: &CpuStorage,
        patches_layout: &Layout,
        class: &CpuStorage,
        class_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tiles, rows, width) = Self::dims(patches_layout, class_layout, positions_layout)?;
        let (class, positions) = (cpu::slice(class, class_layout)?, cpu::slice(positions, positions_layout)?);
        let mut out = Vec::with_capacity(tiles * rows * width);
        for tile in cpu::slice(patches, patches_layout)?.chunks_exact((rows - 1) * width) {
            out.extend(class.iter().chain(tile).zip(positions).map(|(value, position)| value + position));
        }
        Ok((CpuStorage::F32(out), (tiles, rows, width).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        patches: &candle_core::CudaStorage,
        patches_layout: &Layout,
        class: &candle_core::CudaStorage,
        class_layout: &Layout,
        positions: &candle_core::CudaStorage,
        positions_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (tiles, rows, width) = Self::dims(patches_layout, class_layout, positions_layout)?;
        let (device, patches) = (&patches.device, cuda::slice::<f32>(patches, patches_layout)?);
        let class = cuda::slice::<f32>(class, class_layout)?;
        let positions = cuda::slice::<f32>(positions, positions_layout)?;
        let (count, of_tile, columns) = (tiles * rows * width, rows as u32, width as u32);
        let mut out = cuda::room::<f32>(device, count)?;
        let kernel = Kernel::of(device, &STEM, "stem")?;
        launch!(kernel, cuda::each(count)?, &patches, &class, &positions, &mut out, &of_tile, &columns, &count)?;
        Ok((cuda::storage(out, device), (tiles, rows, width).into()))
    }
}

//! The pixels of each patch of a picture as a row: what the first layer of a vision tower multiplies.

use candle_core::{DType, Result, Tensor, bail};

/// Pixels `[tiles, channels, side, side]` in f32 to `[tiles · (side ÷ patch)², length]`, patches line by line: rows of
/// `channels · patch²` numbers, and zeros behind them; rounded to `out`, which on a CPU is f32.
pub fn patches(pixels: &Tensor, patch: usize, length: usize, out: DType) -> Result<Tensor> {
    let (tiles, channels, side, width) = pixels.dims4()?;
    if length < channels * patch * patch {
        bail!("rows of {length} numbers do not hold patches of {patch}x{patch} pixels")
    }
    if patch == 0 || side != width || side % patch != 0 || tiles * side == 0 {
        bail!("pictures of {width}x{side} pixels have no whole patches of {patch}")
    }
    #[cfg(feature = "cuda")]
    if pixels.device().is_cuda() {
        return pixels.apply_op1_no_bwd(&on_gpu::Patches { patch, length, out });
    }
    if out != DType::F32 {
        bail!("patches on a CPU are in f32 and not {out:?}")
    }
    let grid = side / patch;
    pixels
        .reshape(&[tiles, channels, grid, patch, grid, patch][..])?
        .permute(&[0, 2, 4, 1, 3, 5][..])?
        .reshape((tiles * grid * grid, channels * patch * patch))?
        .pad_with_zeros(1, 0, length - channels * patch * patch)
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, bail};
    use half::{bf16, f16};

    use crate::ops::cuda::{self, Format, Kernel, PATCHES, launch};

    /// The same in one pass.
    pub struct Patches {
        pub patch: usize,
        pub length: usize,
        pub out: DType,
    }

    impl CustomOp1 for Patches {
        fn name(&self) -> &'static str {
            "patches"
        }

        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            bail!("the pixels are not on a GPU")
        }

        fn cuda_fwd(&self, pixels: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
            match self.out {
                DType::F16 => self.launch::<f16>(pixels, layout, "patches_f16"),
                DType::BF16 => self.launch::<bf16>(pixels, layout, "patches_bf16"),
                _ => self.launch::<f32>(pixels, layout, "patches_f32"),
            }
        }
    }

    impl Patches {
        fn launch<Out: Format>(
            &self,
            pixels: &CudaStorage,
            layout: &Layout,
            kernel: &str,
        ) -> Result<(CudaStorage, Shape)> {
            let (device, (tiles, channels, side, _)) = (&pixels.device, layout.shape().dims4()?);
            let pixels = cuda::slice::<f32>(pixels, layout)?;
            let (rows, width) = (tiles * (side / self.patch).pow(2), self.length);
            let mut out = cuda::room::<Out>(device, rows * width)?;
            let [channels, side, patch, length] = [channels, side, self.patch, width].map(|size| size as u32);
            let config = cuda::blocks([rows, 1, 1], cuda::threads(width), 0)?;
            let kernel = Kernel::of(device, &PATCHES, kernel)?;
            launch!(kernel, config, &pixels, &mut out, &channels, &side, &patch, &length)?;
            Ok((cuda::storage(out, device), (rows, width).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_are_patches_line_by_line_and_in_them_channels() {
        // Two channels of 4 × 4; the number is 100 · channel + 10 · row + column.
        let at = |channel: usize, row: usize, column: usize| (100 * channel + 10 * row + column) as f32;
        let places = (0..2).flat_map(|c| (0..4).flat_map(move |y| (0..4).map(move |x| (c, y, x))));
        let pixels: Vec<f32> = places.map(|(c, y, x)| at(c, y, x)).collect();
        let pixels = Tensor::from_vec(pixels, (1, 2, 4, 4), &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> = patches(&pixels, 2, 8, DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[1], [2.0, 3.0, 12.0, 13.0, 102.0, 103.0, 112.0, 113.0]);
        assert_eq!(rows[2], [20.0, 21.0, 30.0, 31.0, 120.0, 121.0, 130.0, 131.0]);
        let longer: Vec<Vec<f32>> = patches(&pixels, 2, 10, DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!((&longer[1][..8], &longer[1][8..]), (&rows[1][..], &[0.0, 0.0][..]));
        assert!(patches(&pixels, 3, 18, DType::F32).is_err() && patches(&pixels, 2, 8, DType::F16).is_err());
        assert!(patches(&pixels, 2, 7, DType::F32).is_err());
    }
}

//! From the bytes of a picture to normalised numbers: what crosses to a GPU is a quarter of what is computed with.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// `pixels` (`[tiles, 3, height, width]` in u8) times `scale` plus `offset` of each channel, in f32.
pub fn normalise(pixels: &Tensor, scale: [f32; 3], offset: [f32; 3]) -> Result<Tensor> {
    pixels.apply_op1_no_bwd(&Normalise { scale, offset })
}

struct Normalise {
    scale: [f32; 3],
    offset: [f32; 3],
}

impl Normalise {
    /// Pixels of a channel of a tile.
    fn plane(layout: &Layout) -> Result<usize> {
        match layout.shape().dims4()? {
            (_, 3, height, width) if height * width > 0 => Ok(height * width),
            _ => bail!("{:?} are no pixels of three channels", layout.shape()),
        }
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn cpu_fwd(&self, pixels: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let plane = Self::plane(layout)?;
        let (CpuStorage::U8(bytes), Some((start, end))) = (pixels, layout.contiguous_offsets()) else {
            bail!("expected bytes that follow each other")
        };
        let mut out = Vec::with_capacity(end - start);
        for (n, plane) in bytes[start..end].chunks_exact(plane).enumerate() {
            let (scale, offset) = (self.scale[n % 3], self.offset[n % 3]);
            out.extend(plane.iter().map(|byte| f32::from(*byte) * scale + offset));
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        pixels: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{self, Kernel, PATCHES, launch};
        let (device, plane) = (&pixels.device, Self::plane(layout)? as u32);
        let pixels = cuda::slice::<u8>(pixels, layout)?;
        let count = pixels.len();
        let mut out = cuda::room::<f32>(device, count)?;
        let ([s0, s1, s2], [o0, o1, o2]) = (&self.scale, &self.offset);
        let kernel = Kernel::of(device, &PATCHES, "normalise")?;
        launch!(kernel, cuda::each(count)?, &pixels, &mut out, &plane, s0, s1, s2, o0, o1, o2, &count)?;
        Ok((cuda::storage(out, device), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_channel_has_its_own_scale_and_offset() {
        let bytes = Tensor::from_vec((0u8..12).collect(), (2, 3, 1, 2), &Device::Cpu).unwrap();
        let numbers = normalise(&bytes, [1.0, 10.0, 0.5], [0.0, 1.0, -1.0]).unwrap();
        let want = [0.0, 1.0, 21.0, 31.0, 1.0, 1.5, 6.0, 7.0, 81.0, 91.0, 4.0, 4.5];
        assert_eq!(numbers.flatten_all().unwrap().to_vec1::<f32>().unwrap(), want);
        assert!(normalise(&bytes.reshape((3, 2, 1, 2)).unwrap(), [1.0; 3], [0.0; 3]).is_err());
    }
}

//! What a layer adds to its input, in towers of `InternViT` with a learned scale on each column.

#[cfg(feature = "cuda")]
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, DType};
#[cfg(feature = "cuda")]
use half::{bf16, f16};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, Format, Kernel, RESIDUAL, THREADS, launch};

/// `x + y`, both of one shape.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x.apply_op2_no_bwd(y, &Add)
}

/// `x + y · scale`: `x` and `y` `[rows, width]`, `scale` of `width` numbers. On a GPU `y` may come in 16 bits.
pub fn add_scaled(x: &Tensor, y: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.apply_op3_no_bwd(y, scale, &AddScaled)
}

fn check(x: &Layout, y: &Layout) -> Result<()> {
    if x.shape() != y.shape() {
        bail!("{:?} and {:?} cannot be added", x.shape(), y.shape())
    }
    Ok(())
}

fn check_scale(x: &Layout, scale: usize) -> Result<usize> {
    let width = x.dims().last().copied().unwrap_or_default();
    if width != scale || width == 0 {
        bail!("{scale} scales are not one for each of {width} columns")
    }
    Ok(width)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, y: &CpuStorage, yl: &Layout) -> Result<(CpuStorage, Shape)> {
        check(xl, yl)?;
        let (x, y) = (cpu::slice(x, xl)?, cpu::slice(y, yl)?);
        let sum = x.iter().zip(y).map(|(x, y)| x + y).collect();
        Ok((CpuStorage::F32(sum), xl.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, y: &CudaStorage, yl: &Layout) -> Result<(CudaStorage, Shape)> {
        check(xl, yl)?;
        let (device, x, y) = (&x.device, cuda::slice::<f32>(x, xl)?, cuda::slice::<f32>(y, yl)?);
        let count = x.len();
        let mut out = cuda::room::<f32>(device, count)?;
        launch!(Kernel::of(device, &RESIDUAL, "add")?, cuda::each(count)?, &x, &y, &mut out, &count)?;
        Ok((cuda::storage(out, device), xl.shape().clone()))
    }
}

struct AddScaled;

impl CustomOp3 for AddScaled {
    fn name(&self) -> &'static str {
        "add-scaled"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
        scale: &CpuStorage,
        sl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        check(xl, yl)?;
        let (x, y, scale) = (cpu::slice(x, xl)?, cpu::slice(y, yl)?, cpu::slice(scale, sl)?);
        let width = check_scale(xl, scale.len())?;
        let mut out = Vec::with_capacity(x.len());
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            out.extend(x.iter().zip(y).zip(scale).map(|((x, y), scale)| x + y * scale));
        }
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        y: &CudaStorage,
        yl: &Layout,
        scale: &CudaStorage,
        sl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        check(xl, yl)?;
        match y.dtype() {
            DType::F16 => Self::launch::<f16>((x, xl), (y, yl), (scale, sl)),
            DType::BF16 => Self::launch::<bf16>((x, xl), (y, yl), (scale, sl)),
            _ => Self::launch::<f32>((x, xl), (y, yl), (scale, sl)),
        }
    }
}

#[cfg(feature = "cuda")]
impl AddScaled {
    fn launch<T: Format>(
        (x, xl): (&CudaStorage, &Layout),
        (y, yl): (&CudaStorage, &Layout),
        (scale, sl): (&CudaStorage, &Layout),
    ) -> Result<(CudaStorage, Shape)> {
        let (device, scale) = (&x.device, cuda::slice::<f32>(scale, sl)?);
        let (x, y) = (cuda::slice::<f32>(x, xl)?, cuda::slice::<T>(y, yl)?);
        let (count, width) = (x.len(), check_scale(xl, scale.len())?);
        let (mut out, columns) = (cuda::room::<f32>(device, count)?, width as u32);
        if count > 0 {
            let config = cuda::blocks([count / width, width.div_ceil(4 * THREADS), 1], THREADS, 0)?;
            let kernel = Kernel::of(device, &RESIDUAL, &format!("add_scaled_{}", T::name()))?;
            launch!(kernel, config, &x, &y, &scale, &mut out, &columns)?;
        }
        Ok((cuda::storage(out, device), xl.shape().clone()))
    }
}

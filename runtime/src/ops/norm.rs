//! Root-mean-square and layer norms, statistics in f32 (Zhang & Sennrich 2019; Ba et al. 2016).

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use half::{bf16, f16};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, Format, Kernel, NORM, launch};

/// `x / rms(x) · weight`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// `weight` is `[width]`.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self { weight, eps: eps as f32 }
    }

    /// `[width]`.
    #[cfg(feature = "cuda")]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// What is added to the mean square.
    #[cfg(feature = "cuda")]
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// `[…, width]` to the same. Rows may be parts of longer ones.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_as(x, DType::F32)
    }

    /// As [`Self::forward`], rounded to `out`; on a CPU that is f32.
    pub fn forward_as(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        rows(x, out)?.apply_op2_no_bwd(&self.weight, &RmsNormAs { norm: self, out })
    }
}

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CPU gives f32 alone"))]
struct RmsNormAs<'a> {
    norm: &'a RmsNorm,
    out: DType,
}

impl CustomOp2 for RmsNormAs<'_> {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (cpu::slice(x, x_layout)?, cpu::slice(w, w_layout)?);
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(weight.len()) {
            let square: f32 = row.iter().map(|v| v * v).sum();
            let scale = (square / row.len() as f32 + self.norm.eps).sqrt().recip();
            out.extend(row.iter().zip(weight).map(|(v, w)| v * scale * w));
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match self.out {
            DType::F16 => self.launch::<f16>((x, x_layout), (w, w_layout), "rms_norm_f16"),
            DType::BF16 => self.launch::<bf16>((x, x_layout), (w, w_layout), "rms_norm_bf16"),
            _ => self.launch::<f32>((x, x_layout), (w, w_layout), "rms_norm_f32"),
        }
    }
}

#[cfg(feature = "cuda")]
impl RmsNormAs<'_> {
    fn launch<T: Format>(
        &self,
        (x, x_layout): (&CudaStorage, &Layout),
        (w, w_layout): (&CudaStorage, &Layout),
        kernel: &str,
    ) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (weight, (x, stride)) = (cuda::slice::<f32>(w, w_layout)?, cuda::rows::<f32>(x, x_layout)?);
        let (count, width) = check(x_layout, weight.len())?;
        let mut out = cuda::room::<T>(device, count * width)?;
        let (config, columns, stride) = (cuda::blocks([count, 1, 1], threads(width), 0)?, width as u32, stride as u32);
        let kernel = Kernel::early(device, &NORM, kernel)?;
        launch!(kernel, config, &x, &weight, &mut out, &columns, &stride, &self.norm.eps)?;
        Ok((cuda::storage(out, device), x_layout.shape().clone()))
    }
}

/// `(x − mean) / deviation · weight + bias`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias` are `[width]`.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps: eps as f32 }
    }

    /// `[…, width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_as(x, DType::F32)
    }

    /// As [`Self::forward`], rounded to `out`; on a CPU that is f32.
    pub fn forward_as(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        rows(x, out)?.apply_op3_no_bwd(&self.weight, &self.bias, &LayerNormAs { norm: self, out })
    }
}

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CPU gives f32 alone"))]
struct LayerNormAs<'a> {
    norm: &'a LayerNorm,
    out: DType,
}

impl CustomOp3 for LayerNormAs<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (cpu::slice(x, x_layout)?, cpu::slice(w, w_layout)?, cpu::slice(b, b_layout)?);
        let (_, width) = check(x_layout, weight.len())?;
        let mut out = vec![0f32; x.len()];
        cpu::for_each_chunk(&mut out, width, 4 * x.len(), |n, out| {
            let row = &x[n * width..(n + 1) * width];
            let mean = row.iter().sum::<f32>() / width as f32;
            let square: f32 = row.iter().map(|v| (v - mean) * (v - mean)).sum();
            let scale = (square / width as f32 + self.norm.eps).sqrt().recip();
            for (((out, v), w), b) in out.iter_mut().zip(row).zip(weight).zip(bias) {
                *out = (v - mean) * scale * w + b;
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (w, b) = ((w, w_layout), (b, b_layout));
        match self.out {
            DType::F16 => self.launch::<f16>((x, x_layout), w, b, "layer_norm_f16"),
            DType::BF16 => self.launch::<bf16>((x, x_layout), w, b, "layer_norm_bf16"),
            _ => self.launch::<f32>((x, x_layout), w, b, "layer_norm_f32"),
        }
    }
}

#[cfg(feature = "cuda")]
impl LayerNormAs<'_> {
    fn launch<T: Format>(
        &self,
        (x, x_layout): (&CudaStorage, &Layout),
        (w, w_layout): (&CudaStorage, &Layout),
        (b, b_layout): (&CudaStorage, &Layout),
        kernel: &str,
    ) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (weight, bias) = (cuda::slice::<f32>(w, w_layout)?, cuda::slice::<f32>(b, b_layout)?);
        let (x, stride) = cuda::rows::<f32>(x, x_layout)?;
        let (count, width) = check(x_layout, weight.len().min(bias.len()))?;
        let mut out = cuda::room::<T>(device, count * width)?;
        let (config, columns, stride) = (cuda::blocks([count, 1, 1], threads(width), 0)?, width as u32, stride as u32);
        let kernel = Kernel::of(device, &NORM, kernel)?;
        launch!(kernel, config, &x, &weight, &bias, &mut out, &columns, &stride, &self.norm.eps)?;
        Ok((cuda::storage(out, device), x_layout.shape().clone()))
    }
}

/// `x` as the norms take it: on a CPU rows follow each other.
fn rows(x: &Tensor, out: DType) -> Result<Tensor> {
    if x.device().is_cpu() && out != DType::F32 {
        bail!("a norm on a CPU gives f32 and not {out:?}")
    }
    if x.device().is_cpu() { x.contiguous() } else { Ok(x.clone()) }
}

/// Threads of a block that holds a row of `width` numbers, 16 a thread; more than enough for longer ones.
#[cfg(feature = "cuda")]
fn threads(width: usize) -> usize {
    cuda::threads(width.div_ceil(16))
}

/// Number and width of the rows of `layout`, which must be as wide as the weights.
fn check(layout: &Layout, weights: usize) -> Result<(usize, usize)> {
    let width = layout.dims().last().copied().unwrap_or_default();
    if width != weights || width == 0 {
        bail!("a norm of rows of {weights} numbers cannot take rows of {width}")
    }
    Ok((layout.shape().elem_count() / width, width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rms_norm_is_what_its_formula_says() {
        let x = Tensor::new(&[[3f32, -4.0], [0.5, 0.5]], &Device::Cpu).unwrap();
        let norm = RmsNorm::new(Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap(), 1e-6);
        let y: Vec<Vec<f32>> = norm.forward(&x).unwrap().to_vec2().unwrap();
        let rms = 12.5f32.sqrt();
        for (got, want) in y.iter().flatten().zip([3.0 / rms, -8.0 / rms, 1.0, 2.0]) {
            assert!((got - want).abs() < 1e-5, "{got} vs {want}");
        }
    }
}

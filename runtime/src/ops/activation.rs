//! Activation functions: `SiLU` of a gate times its partner, and those of towers and projectors.

use std::f32::consts::FRAC_1_SQRT_2;

#[cfg(feature = "cuda")]
use candle_core::backend::BackendStorage;
use candle_core::cpu::erf::erf_f32;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, DType};
#[cfg(feature = "cuda")]
use half::{bf16, f16};
use vlm_catalog::architecture::Activation;

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, ACTIVATION, Format, Kernel, THREADS, launch};

/// `silu(gate) · up` of rows `[gate | up]`: `[rows, 2 · width]` to `[rows, width]` in the same format, f32 on a CPU
/// (Shazeer 2020).
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    gate_up.apply_op1_no_bwd(&SiluMul)
}

/// `activation` of each element, in the same format, f32 on a CPU.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Each(activation))
}

struct SiluMul;

impl SiluMul {
    /// Number of rows, and the width of what they become.
    fn dims(layout: &Layout) -> Result<(usize, usize)> {
        let (rows, both) = layout.shape().dims2()?;
        if both % 2 != 0 || both == 0 {
            bail!("rows of {both} numbers are no pairs of gate and partner")
        }
        Ok((rows, both / 2))
    }
}

impl CustomOp1 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = Self::dims(layout)?;
        let x = cpu::slice(x, layout)?;
        let mut out = vec![0f32; rows * width];
        // An exponential costs about as much as 16 multiplications.
        cpu::for_each_chunk(&mut out, width, rows * width * 16, |row, out| {
            let (gate, up) = x[row * 2 * width..][..2 * width].split_at(width);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * sigmoid(*gate) * up;
            }
        });
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match x.dtype() {
            DType::F16 => gated::<f16>(x, layout),
            DType::BF16 => gated::<bf16>(x, layout),
            _ => gated::<f32>(x, layout),
        }
    }
}

/// As [`silu_mul`], of numbers of `T`.
#[cfg(feature = "cuda")]
pub fn gated<T: Format>(x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let (device, (rows, width)) = (&x.device, SiluMul::dims(layout)?);
    let (x, columns) = (cuda::slice::<T>(x, layout)?, width as u32);
    let mut out = cuda::room::<T>(device, rows * width)?;
    if rows > 0 {
        let config = cuda::blocks([rows, width.div_ceil(4 * THREADS), 1], THREADS, 0)?;
        let kernel = Kernel::early(device, &ACTIVATION, &format!("silu_mul_{}", T::name()))?;
        launch!(kernel, config, &x, &mut out, &columns)?;
    }
    Ok((cuda::storage(out, device), (rows, width).into()))
}

/// Of each number on its own.
struct Each(Activation);

impl CustomOp1 for Each {
    fn name(&self) -> &'static str {
        match self.0 {
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick-gelu",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = cpu::slice(x, layout)?;
        let of = match self.0 {
            Activation::Gelu => gelu,
            Activation::QuickGelu => quick_gelu,
        };
        let mut out = vec![0f32; x.len()];
        let chunk = 4096;
        cpu::for_each_chunk(&mut out, chunk, x.len() * 16, |i, out| {
            for (out, x) in out.iter_mut().zip(&x[i * chunk..]) {
                *out = of(*x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match x.dtype() {
            DType::F16 => self.launch::<f16>(x, layout, "f16"),
            DType::BF16 => self.launch::<bf16>(x, layout, "bf16"),
            _ => self.launch::<f32>(x, layout, "f32"),
        }
    }
}

#[cfg(feature = "cuda")]
impl Each {
    fn launch<T: Format>(&self, x: &CudaStorage, layout: &Layout, format: &str) -> Result<(CudaStorage, Shape)> {
        let (device, x) = (&x.device, cuda::slice::<T>(x, layout)?);
        let count = x.len();
        let mut out = cuda::room::<T>(device, count)?;
        let name = match self.0 {
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
        };
        let kernel = Kernel::of(device, &ACTIVATION, &format!("{name}_{format}"))?;
        launch!(kernel, cuda::each(count.div_ceil(4))?, &x, &mut out, &count)?;
        Ok((cuda::storage(out, device), layout.shape().clone()))
    }
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf_f32(x * FRAC_1_SQRT_2))
}

fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn silu_mul_pairs_the_halves_of_each_row() {
        let x = Tensor::new(&[[1f32, -2.0, 10.0, 100.0], [0.0, 3.0, 5.0, 1.0]], &Device::Cpu).unwrap();
        let got: Vec<Vec<f32>> = silu_mul(&x).unwrap().to_vec2().unwrap();
        let want = [7.310_586, -23.840_584, 0.0, 2.857_722];
        for (got, want) in got.iter().flatten().zip(want) {
            assert!((got - want).abs() < 1e-4, "{got} vs {want}");
        }
    }

    #[test]
    fn the_two_gelus_differ_as_they_should() {
        let x = Tensor::new(&[1f32, -1.0], &Device::Cpu).unwrap();
        let quick: Vec<f32> = activate(&x, Activation::QuickGelu).unwrap().to_vec1().unwrap();
        let exact: Vec<f32> = activate(&x, Activation::Gelu).unwrap().to_vec1().unwrap();
        assert!((quick[0] - 0.845_796).abs() < 1e-5 && (quick[1] + 0.154_204).abs() < 1e-5);
        assert!((exact[0] - 0.841_345).abs() < 1e-5 && (exact[1] + 0.158_655).abs() < 1e-5);
    }
}

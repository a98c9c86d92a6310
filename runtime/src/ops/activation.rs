//! Activation functions: `SiLU` of a gate times its partner, and those of towers and projectors.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use vlm_catalog::architecture::Activation;

use super::cpu;

/// `silu(gate) · up` of rows `[gate | up]`: `[rows, 2 · width]` to `[rows, width]` (Shazeer 2020).
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    gate_up.apply_op1_no_bwd(&SiluMul)
}

/// `activation` of each element.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::QuickGelu => x.apply_op1_no_bwd(&QuickGelu),
    }
}

struct SiluMul;

impl CustomOp1 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, both) = layout.shape().dims2()?;
        let width = both / 2;
        let x = cpu::slice(x, layout)?;
        let mut out = vec![0f32; rows * width];
        // An exponential costs about as much as 16 multiplications.
        cpu::for_each_chunk(&mut out, width, rows * width * 16, |row, out| {
            let (gate, up) = x[row * both..(row + 1) * both].split_at(width);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * sigmoid(*gate) * up;
            }
        });
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }
}

struct QuickGelu;

impl CustomOp1 for QuickGelu {
    fn name(&self) -> &'static str {
        "quick-gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = cpu::slice(x, layout)?;
        let mut out = vec![0f32; x.len()];
        let chunk = 4096;
        cpu::for_each_chunk(&mut out, chunk, x.len() * 16, |i, out| {
            for (out, x) in out.iter_mut().zip(&x[i * chunk..]) {
                *out = x * sigmoid(1.702 * x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
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

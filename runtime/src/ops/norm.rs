//! Root-mean-square and layer norms, statistics in f32 (Zhang & Sennrich 2019; Ba et al. 2016).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::cpu;

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

    /// `[…, width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op2_no_bwd(&self.weight, self)
    }
}

impl CustomOp2 for RmsNorm {
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
            let scale = (square / row.len() as f32 + self.eps).sqrt().recip();
            out.extend(row.iter().zip(weight).map(|(v, w)| v * scale * w));
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
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
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
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

//! `x · Wᵀ + b`. Few rows are bound by reading the weights once: an own product; many rows go to
//! the matrix product of the backend.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

use super::cpu;

/// Rows up to which the own product is used.
const FEW_ROWS: usize = 8;

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` is `[out, in]` and contiguous, `bias` is `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Layers that read the same input as one layer, outputs side by side.
    pub fn stack(parts: &[Self]) -> Result<Self> {
        let weights: Vec<_> = parts.iter().map(|part| &part.weight).collect();
        let biases: Option<Vec<_>> = parts.iter().map(|part| part.bias.as_ref()).collect();
        let bias = biases.map(|biases| Tensor::cat(&biases, 0)).transpose()?;
        Ok(Self::new(Tensor::cat(&weights, 0)?, bias))
    }

    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = if x.dim(0)? <= FEW_ROWS {
            x.apply_op2_no_bwd(&self.weight, &FewRows)?
        } else {
            x.matmul(&self.weight.t()?)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

struct FewRows;

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "linear-few-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (outer, _) = w_layout.shape().dims2()?;
        let (x, w) = (cpu::slice(x, x_layout)?, cpu::slice(w, w_layout)?);
        let mut columns = vec![0f32; rows * outer];
        let block = outer.div_ceil(rayon::current_num_threads()).max(16);
        cpu::for_each_chunk(&mut columns, block * rows, rows * outer * inner, |i, columns| {
            let w = &w[i * block * inner..];
            cpu::vectorised(Products { x, w, inner, rows, columns });
        });
        Ok((CpuStorage::F32(transpose(columns, rows)), (rows, outer).into()))
    }
}

/// `columns[o · rows + r]` is the product of row `o` of `w` and row `r` of `x`.
struct Products<'a> {
    x: &'a [f32],
    w: &'a [f32],
    inner: usize,
    rows: usize,
    columns: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (column, w) in self.columns.chunks_exact_mut(self.rows).zip(self.w.chunks_exact(self.inner)) {
            let row = |r: usize| &self.x[r * self.inner..(r + 1) * self.inner];
            let quads = self.rows / 4 * 4;
            for r in (0..quads).step_by(4) {
                let products = cpu::dots::<S, 4, 2>(simd, w, [row(r), row(r + 1), row(r + 2), row(r + 3)]);
                column[r..r + 4].copy_from_slice(&products);
            }
            for (r, y) in column.iter_mut().enumerate().skip(quads) {
                *y = cpu::dot(simd, w, row(r));
            }
        }
    }
}

fn transpose(columns: Vec<f32>, rows: usize) -> Vec<f32> {
    if rows == 1 {
        return columns;
    }
    let outer = columns.len() / rows.max(1);
    (0..rows).flat_map(|r| (0..outer).map(move |o| (o, r))).map(|(o, r)| columns[o * rows + r]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn few_rows_and_many_rows_agree() {
        let device = Device::Cpu;
        for (inner, outer) in [(64, 96), (7, 5), (130, 33)] {
            let weight = Tensor::randn(0f32, 1.0, (outer, inner), &device).unwrap();
            let bias = Tensor::randn(0f32, 1.0, outer, &device).unwrap();
            let layer = Linear::new(weight, Some(bias));
            let x = Tensor::randn(0f32, 1.0, (FEW_ROWS + 3, inner), &device).unwrap();
            let whole: Vec<Vec<f32>> = layer.forward(&x).unwrap().to_vec2().unwrap();
            for rows in 1..=FEW_ROWS {
                let part: Vec<Vec<f32>> = layer.forward(&x.narrow(0, 1, rows).unwrap()).unwrap().to_vec2().unwrap();
                for (a, b) in part.iter().flatten().zip(whole[1..=rows].iter().flatten()) {
                    assert!((a - b).abs() < 1e-4, "{rows} rows of {inner}x{outer}: {a} vs {b}");
                }
            }
        }
    }
}

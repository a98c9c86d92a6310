//! What products with quantised weights need beside candle's kernels for few rows: many rows, and biases.

use candle_core::cuda::cudarc::cublas::sys;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use vlm_catalog::footprint::GPU_WIDENED_NUMBERS;
use vlm_catalog::quantization::BlockFormat;

use super::{Products, Rows, with_bias};
use crate::ops::cuda::{self, Kernel, LINEAR, WIDEN, launch};
use crate::ops::linear::Blocks;

/// Many rows with quantised weights, which are widened for them, some at a time.
pub struct Widened<'a> {
    pub blocks: &'a Blocks,
    pub bias: Option<&'a Tensor>,
}

impl CustomOp1 for Widened<'_> {
    fn name(&self) -> &'static str {
        "quantised-many-rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, (rows, _), (outer, inner)) = (&x.device, layout.shape().dims2()?, self.blocks.dims());
        let kernel = match self.blocks.format() {
            BlockFormat::Q8_0 => "widen_q8_0",
            BlockFormat::Q4_0 => "widen_q4_0",
            BlockFormat::Q4_K => "widen_q4_k",
        };
        let (kernel, blocks) = (Kernel::of(device, &WIDEN, kernel)?, self.blocks.tensor().device_ptr()? as u64);
        // The columns of a part begin at a multiple of what any kernel asks for.
        let at_a_time = (GPU_WIDENED_NUMBERS as usize / inner / 64 * 64).clamp(64, outer.next_multiple_of(64));
        let mut widened = cuda::room::<f32>(device, at_a_time.min(outer) * inner)?;
        let mut out = cuda::room::<f32>(device, rows * outer)?;
        for first in (0..outer).step_by(at_a_time) {
            let some = at_a_time.min(outer - first);
            let (from, count) = (blocks + (first * self.blocks.row_bytes()) as u64, some * inner);
            launch!(kernel, cuda::each(count)?, &from, &mut widened, &count)?;
            let products = Products {
                device,
                x: Rows::Exact(cuda::slice(x, layout)?),
                w: widened.slice(..count),
                rows,
                inner,
                outer: some,
                stride: outer,
                compute: sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
                whole: true,
            };
            let bias = self.bias.map(|bias| bias.narrow(0, first, some)).transpose()?;
            let mut columns = out.slice_mut(first..);
            products.with_bias::<f32, _>(bias.as_ref(), |bias| products.many(bias, 0.0, &mut columns))?;
        }
        Ok((cuda::storage(out, device), (rows, outer).into()))
    }
}

/// A bias for each row, behind products that have none.
pub struct AddBias<'a>(pub &'a Tensor);

impl CustomOp1 for AddBias<'_> {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the rows and the bias are not on one GPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, (_, outer)) = (&x.device, layout.shape().dims2()?);
        let x = cuda::slice::<f32>(x, layout)?;
        let (count, columns) = (x.len(), outer as u32);
        let mut out = cuda::room::<f32>(device, count)?;
        let kernel = Kernel::of(device, &LINEAR, "add_bias")?;
        with_bias(self.0, outer, |bias| launch!(kernel, cuda::each(count)?, &x, bias, &mut out, &columns, &count))?;
        Ok((cuda::storage(out, device), layout.shape().clone()))
    }
}

//! Products with quantised weights: few rows in integers, and many with weights that are widened for them.

use candle_core::cuda::cudarc::cublas::sys;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, CustomOp1, InplaceOp2, Layout, Result, Shape, Tensor, bail};
use vlm_catalog::footprint::GPU_WIDENED_NUMBERS;

use super::few::{Sizes, What};
use super::few_quantised::Plan;
use super::packed::name;
use super::{Products, Rows, with_bias};
use crate::ops::cuda::{self, Kernel, Limits, WIDEN, launch};
use crate::ops::linear::Blocks;

/// Few rows.
pub struct Few<'a> {
    blocks: &'a Blocks,
    bias: Option<&'a Tensor>,
    plan: Plan,
}

impl<'a> Few<'a> {
    /// Products of `rows` rows, or what becomes of them, if there is a kernel for such sizes.
    pub fn new(
        blocks: &'a Blocks,
        bias: Option<&'a Tensor>,
        rows: usize,
        what: What,
        device: &CudaDevice,
    ) -> Result<Option<Self>> {
        let (outputs, inner) = blocks.dims();
        let outer = if what == What::Gated { outputs / 2 } else { outputs };
        if what == What::Gated && !outputs.is_multiple_of(2) {
            return Ok(None);
        }
        let plan = Plan::new(blocks.format(), Sizes { rows, inner, outer }, what, Limits::of(device)?);
        Ok(plan.map(|plan| Self { blocks, bias, plan }))
    }

    fn launch(&self, x: &CudaStorage, layout: &Layout, outer: usize, out: &mut impl DevicePtrMut<f32>) -> Result<()> {
        let (device, weights, stream) = (&x.device, self.blocks.packed()?, x.device.cuda_stream());
        let (out, _out) = out.device_ptr_mut(&stream);
        aligned(x, layout, |x| match self.bias {
            None => self.plan.launch(device, weights, x, 0, out),
            Some(bias) => with_bias(bias, outer, |bias| {
                let (bias, _bias) = bias.device_ptr(&stream);
                self.plan.launch(device, weights, x, bias, out)
            }),
        })
    }
}

/// Calls `use_it` with rows that begin at a multiple of 16 bytes, which they do but in the middle of a tensor.
fn aligned<R>(x: &CudaStorage, layout: &Layout, use_it: impl FnOnce(&CudaView<'_, f32>) -> Result<R>) -> Result<R> {
    let rows = cuda::slice::<f32>(x, layout)?;
    if layout.start_offset().is_multiple_of(4) {
        return use_it(&rows);
    }
    let mut copy: CudaSlice<f32> = cuda::room(&x.device, rows.len())?;
    x.device.memcpy_dtod(&rows, &mut copy)?;
    use_it(&copy.slice(..))
}

impl CustomOp1 for Few<'_> {
    fn name(&self) -> &'static str {
        "quantised-few-rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let Sizes { rows, outer, .. } = self.plan.sizes();
        let mut out = cuda::room::<f32>(&x.device, rows * outer)?;
        self.launch(x, layout, outer, &mut out)?;
        Ok((cuda::storage(out, &x.device), (rows, outer).into()))
    }
}

impl InplaceOp2 for Few<'_> {
    fn name(&self) -> &'static str {
        "quantised-few-rows-added"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("the rows and the weights are not on one GPU")
    }

    fn cuda_fwd(&self, to: &mut CudaStorage, tl: &Layout, x: &CudaStorage, xl: &Layout) -> Result<()> {
        let Sizes { rows, outer, .. } = self.plan.sizes();
        if tl.shape().dims2()? != (rows, outer) {
            bail!("products of {rows} rows and {outer} columns cannot be added to {:?}", tl.shape())
        }
        let Some((start, end)) = tl.contiguous_offsets() else { bail!("expected whole rows, got {tl:?}") };
        self.launch(x, xl, outer, &mut to.as_cuda_slice_mut::<f32>()?.slice_mut(start..end))
    }
}

/// Many rows with weights that are widened for them, some at a time.
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
        let kernel = Kernel::of(device, &WIDEN, &format!("widen_{}", name(self.blocks.format())))?;
        let weights = self.blocks.packed()?.place();
        // The columns of a part begin at a multiple of what any kernel asks for.
        let at_a_time = (GPU_WIDENED_NUMBERS as usize / inner / 64 * 64).clamp(64, outer.next_multiple_of(64));
        let mut widened = cuda::room::<f32>(device, at_a_time.min(outer) * inner)?;
        let mut out = cuda::room::<f32>(device, rows * outer)?;
        for first in (0..outer).step_by(at_a_time) {
            let some = at_a_time.min(outer - first);
            let (count, from, row) = (some * inner, first as u32, inner as u32);
            let fours = count / 4;
            launch!(kernel, cuda::each(fours)?, weights, &mut widened, &from, &row, &fours)?;
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

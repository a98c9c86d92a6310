//! Whether all numbers of a tensor are finite. On a GPU one word leaves its memory, and not the tensor.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, FINITE, Kernel, launch};

/// Whether all numbers of an f32 tensor are finite. Waits for what computes them.
pub fn finite(x: &Tensor) -> Result<bool> {
    Ok(x.contiguous()?.apply_op1_no_bwd(&NotFinite)?.to_vec1::<u32>()? == [0])
}

/// 1 where a number is not finite, else 0.
struct NotFinite;

impl CustomOp1 for NotFinite {
    fn name(&self) -> &'static str {
        "not-finite"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let found = cpu::slice(x, layout)?.iter().any(|number| !number.is_finite());
        Ok((CpuStorage::U32(vec![u32::from(found)]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        /// Enough to fill any GPU; more only queue.
        const BLOCKS: usize = 1024;
        let (device, x) = (&x.device, cuda::slice::<f32>(x, layout)?);
        let (mut out, count) = (device.alloc_zeros::<u32>(1)?, x.len());
        let config = cuda::blocks([count.div_ceil(cuda::THREADS).clamp(1, BLOCKS), 1, 1], cuda::THREADS, 0)?;
        launch!(Kernel::of(device, &FINITE, "find_not_finite")?, config, &x, &mut out, &count)?;
        Ok((cuda::storage(out, device), 1.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_number_that_is_none_is_found_and_none_outside_of_the_tensor() {
        let of = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).unwrap();
        assert!(finite(&of(&[0.0, f32::MAX, -1.0])).unwrap());
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = of(&[1.0, 2.0, broken]);
            assert!(!finite(&x).unwrap() && finite(&x.narrow(0, 0, 2).unwrap()).unwrap());
        }
    }
}

//! Reads all numbers of a tensor and keeps next to nothing: how fast memory can be read, which bounds what a model
//! generates. No model has this op; measurements do.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, Kernel, Limits, READ, launch};

/// Numbers that one thread of a processor reads at a time.
const PART: usize = 1 << 18;

/// The exclusive or of the bits of all numbers of `x`, which is contiguous in f32 and has a multiple of four: `[1]` in
/// u32.
pub fn read(x: &Tensor) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Read)
}

struct Read;

impl CustomOp1 for Read {
    fn name(&self) -> &'static str {
        "read"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = cpu::slice(x, layout)?;
        let all = |part: &[f32]| part.iter().fold(0, |all, number| all ^ number.to_bits());
        let all = x.par_chunks(PART).map(all).reduce(|| 0, |a, b| a ^ b);
        Ok((CpuStorage::U32(vec![all]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        /// Threads of a block, and blocks of a multiprocessor, which are there at the same time.
        const THREADS: usize = 512;
        const BLOCKS: usize = 2;
        let (device, x) = (&x.device, cuda::slice::<f32>(x, layout)?);
        if !x.len().is_multiple_of(4) || !(layout.start_offset()).is_multiple_of(4) {
            candle_core::bail!("{} numbers from {} on are no whole vectors of four", x.len(), layout.start_offset())
        }
        let mut out = device.alloc_zeros::<u32>(1)?;
        let (config, count) = (cuda::blocks([BLOCKS * Limits::of(device)?.processors, 1, 1], THREADS, 0)?, x.len() / 4);
        launch!(Kernel::of(device, &READ, "read_words")?, config, &x, &mut out, &count)?;
        Ok((cuda::storage(out, device), 1.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_number_is_read() {
        let x = Tensor::randn(0f32, 1.0, 3 * PART + 8, &Device::Cpu).unwrap();
        let values: Vec<f32> = x.to_vec1().unwrap();
        let want = values.iter().fold(0, |all, value| all ^ value.to_bits());
        assert_eq!(read(&x).unwrap().to_vec1::<u32>().unwrap(), [want]);
        let rest = x.narrow(0, PART, 2 * PART + 8).unwrap();
        assert_ne!(read(&rest).unwrap().to_vec1::<u32>().unwrap(), [want]);
    }
}

//! The likeliest token of each row of logits, chosen where they are: a word a row leaves a GPU, and not the logits.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, HIGHEST, Kernel, launch};

/// What is said of a row that has none.
const NONE: u32 = u32::MAX;

/// The first of the highest numbers of each row of `[rows, width]` in f32; `None` for a row with one that is not finite.
pub fn highest(x: &Tensor) -> Result<Vec<Option<u32>>> {
    let found = x.contiguous()?.apply_op1_no_bwd(&Highest)?.to_vec1::<u32>()?;
    Ok(found.into_iter().map(|id| (id != NONE).then_some(id)).collect())
}

struct Highest;

impl CustomOp1 for Highest {
    fn name(&self) -> &'static str {
        "highest"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let of = |row: &[f32]| {
            let mut best = (f32::NEG_INFINITY, NONE);
            for (id, number) in (0..).zip(row) {
                if *number > best.0 {
                    best = (*number, id);
                }
            }
            if row.iter().all(|number| number.is_finite()) { best.1 } else { NONE }
        };
        let found = cpu::slice(x, layout)?.chunks_exact(width.max(1)).map(of).collect();
        Ok((CpuStorage::U32(found), rows.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        const THREADS: usize = 1024;
        let (device, (rows, width)) = (&x.device, layout.shape().dims2()?);
        let (x, columns) = (cuda::slice::<f32>(x, layout)?, width as u32);
        let mut out = cuda::room::<u32>(device, rows)?;
        if rows > 0 {
            let config = cuda::blocks([rows, 1, 1], THREADS, 0)?;
            launch!(Kernel::of(device, &HIGHEST, "highest")?, config, &x, &mut out, &columns)?;
        }
        Ok((cuda::storage(out, device), rows.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_row_gives_the_first_of_its_highest_and_a_broken_one_none() {
        let rows = [[0.5f32, 3.0, -1.0, 3.0], [-7.0, -8.0, -9.0, -6.0], [1.0, f32::NAN, 2.0, 0.0]];
        let rows = Tensor::new(&rows, &Device::Cpu).unwrap();
        assert_eq!(highest(&rows).unwrap(), [Some(1), Some(3), None]);
        assert_eq!(highest(&rows.narrow(0, 1, 1).unwrap()).unwrap(), [Some(3)]);
        let infinite = Tensor::new(&[[f32::INFINITY, 1.0], [f32::NEG_INFINITY, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(highest(&infinite).unwrap(), [None, None]);
    }
}

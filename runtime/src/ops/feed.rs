//! Tokens that were chosen become those that are fed, without leaving the device.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// Of `chosen` (`[tokens]` in u32) those at `rows`, in that order. What is no token of a vocabulary of `vocabulary`
/// becomes the first: its row is computed, and nobody will want it.
///
/// # Errors
/// Rows that there are not.
pub fn feed(chosen: &Tensor, rows: &[u32], vocabulary: usize) -> Result<Tensor> {
    let count = chosen.dim(0)?;
    if let Some(row) = rows.iter().find(|row| **row as usize >= count) {
        bail!("there is no token {row} among {count}")
    }
    chosen.apply_op1_no_bwd(&Feed { rows, vocabulary: u32::try_from(vocabulary).unwrap_or(u32::MAX) })
}

struct Feed<'a> {
    rows: &'a [u32],
    vocabulary: u32,
}

impl CustomOp1 for Feed<'_> {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn cpu_fwd(&self, chosen: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::U32(chosen), Some((start, end))) = (chosen, layout.contiguous_offsets()) else {
            bail!("expected tokens")
        };
        let token = |row: &u32| chosen[start..end].get(*row as usize).copied().filter(|id| *id < self.vocabulary);
        let fed = self.rows.iter().map(|row| token(row).unwrap_or_default()).collect();
        Ok((CpuStorage::U32(fed), self.rows.len().into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        chosen: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{self, CHOOSE, Kernel, launch};
        let (device, count) = (&chosen.device, self.rows.len());
        let chosen = cuda::slice::<u32>(chosen, layout)?;
        let mut out = cuda::room::<u32>(device, count)?;
        if count > 0 {
            let (rows, config, rest) = (device.clone_htod(self.rows)?, cuda::each(count)?, count as u32);
            launch!(Kernel::of(device, &CHOOSE, "feed")?, config, &chosen, &rows, &mut out, &self.vocabulary, &rest)?;
        }
        Ok((cuda::storage(out, device), count.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_take_their_tokens_and_what_is_none_becomes_the_first() {
        let chosen = Tensor::new(&[7u32, u32::MAX, 9, 3], &Device::Cpu).unwrap();
        let fed = |rows: &[u32]| feed(&chosen, rows, 9).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(fed(&[3, 0, 1, 2]), [3, 7, 0, 0]);
        assert!(fed(&[]).is_empty() && feed(&chosen, &[4], 9).is_err());
    }
}

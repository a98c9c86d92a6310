//! Chosen rows of a table: embeddings of tokens, and rows in another order.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda::{self, GATHER, Kernel, launch};
use super::element::Element;

/// Rows `ids` of `table` (`[rows, width]` in f32, f16 or bf16) in f32: `[ids, width]`.
///
/// # Errors
/// Rows that the table does not have.
pub fn gather(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let rows = table.dim(0)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        bail!("there is no row {id} in a table of {rows}")
    }
    gather_at(table, &Tensor::new(ids, table.device())?)
}

/// As [`gather`], of rows whose numbers are on the device of `table` and known to be among them.
pub fn gather_at(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    table.apply_op2_no_bwd(ids, &Gather)
}

struct Gather;

impl Gather {
    fn rows<E: Element>(table: &[E], width: usize, ids: &[u32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(ids.len() * width);
        for id in ids {
            out.extend(table[*id as usize * width..][..width].iter().map(|value| value.widen()));
        }
        out
    }
}

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, table: &CpuStorage, tl: &Layout, ids: &CpuStorage, il: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = tl.shape().dims2()?;
        let (CpuStorage::U32(ids), Some((start, end))) = (ids, il.contiguous_offsets()) else {
            bail!("expected the numbers of rows")
        };
        let ids = &ids[start..end];
        let out = match table {
            CpuStorage::F16(_) => Self::rows(cpu::stored::<f16>(table, tl)?, width, ids),
            CpuStorage::BF16(_) => Self::rows(cpu::stored::<bf16>(table, tl)?, width, ids),
            _ => Self::rows(cpu::stored::<f32>(table, tl)?, width, ids),
        };
        Ok((CpuStorage::F32(out), (ids.len(), width).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        table: &candle_core::CudaStorage,
        tl: &Layout,
        ids: &candle_core::CudaStorage,
        il: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::DType;
        use candle_core::backend::BackendStorage;
        let (device, (_, width), ids) = (&table.device, tl.shape().dims2()?, cuda::slice::<u32>(ids, il)?);
        let (count, columns) = (ids.len(), width as u32);
        let mut out = cuda::room::<f32>(device, count * width)?;
        let config = cuda::blocks([count.max(1), 1, 1], cuda::threads(width), 0)?;
        let kernel = |format: &str| Kernel::early(device, &GATHER, &format!("gather_{format}"));
        if count > 0 {
            match table.dtype() {
                DType::F16 => {
                    let table = cuda::slice::<f16>(table, tl)?;
                    launch!(kernel("f16")?, config, &table, &ids, &mut out, &columns)?;
                }
                DType::BF16 => {
                    let table = cuda::slice::<bf16>(table, tl)?;
                    launch!(kernel("bf16")?, config, &table, &ids, &mut out, &columns)?;
                }
                _ => {
                    let table = cuda::slice::<f32>(table, tl)?;
                    launch!(kernel("f32")?, config, &table, &ids, &mut out, &columns)?;
                }
            }
        }
        Ok((cuda::storage(out, device), (count, width).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn rows_come_in_the_order_of_their_numbers_and_in_f32() {
        let table = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let rows = gather(&table.to_dtype(dtype).unwrap().narrow(0, 1, 2).unwrap(), &[1, 0, 1]).unwrap();
            assert_eq!(rows.to_vec2::<f32>().unwrap(), [[5.0, 6.0], [3.0, 4.0], [5.0, 6.0]], "{dtype:?}");
        }
        assert_eq!(gather(&table, &[]).unwrap().dims(), [0, 2]);
        assert!(gather(&table, &[3]).unwrap_err().to_string().contains("no row 3"));
    }
}

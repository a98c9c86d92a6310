//! Products of many rows: a few weight rows at a time are widened to f32 and go to the matrix product of the
//! backend, so that one path serves every number format.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use super::Weight;
use crate::ops::cpu;
use crate::ops::element::Element;

/// Weights that are widened at a time: they stay in the cache.
const WIDENED: usize = 1 << 20;

/// `[rows, in]` to `[rows, out]`.
pub fn forward(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    if let Weight::Dense(weight) = weight
        && weight.dtype() == DType::F32
    {
        return x.matmul(&weight.t()?);
    }
    let (outer, inner) = weight.dims()?;
    let block = (WIDENED / inner.max(1)).clamp(16, outer.max(16));
    let parts = (0..outer)
        .step_by(block)
        .map(|first| {
            let rows = block.min(outer - first);
            let widened = Tensor::from_vec(widen(weight, first, rows, inner)?, (rows, inner), &Device::Cpu)?;
            x.matmul(&widened.t()?)
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 1)
}

/// Rows `first..first + rows` of `weight` in f32.
fn widen(weight: &Weight, first: usize, rows: usize, inner: usize) -> Result<Vec<f32>> {
    let mut out = vec![0f32; rows * inner];
    match weight {
        Weight::Blocks(blocks) => blocks.widen(first, &mut out)?,
        Weight::Dense(tensor) => {
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { bail!("the weights are not in main memory") };
            match storage {
                CpuStorage::F16(_) => {
                    widen_rows(&cpu::stored::<f16>(storage, layout)?[first * inner..], inner, &mut out);
                }
                _ => widen_rows(&cpu::stored::<bf16>(storage, layout)?[first * inner..], inner, &mut out),
            }
        }
    }
    Ok(out)
}

fn widen_rows<E: Element>(stored: &[E], inner: usize, out: &mut [f32]) {
    let work = out.len();
    cpu::for_each_chunk(out, inner, work, |row, out| {
        cpu::vectorised(Widen { stored: &stored[row * inner..][..inner], out });
    });
}

struct Widen<'a, E> {
    stored: &'a [E],
    out: &'a mut [f32],
}

impl<E: Element> WithSimd for Widen<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for (out, stored) in self.out.iter_mut().zip(self.stored) {
            *out = stored.widen();
        }
    }
}

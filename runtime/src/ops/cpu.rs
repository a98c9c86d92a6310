//! What the CPU references share: slices of tensors, and when work is worth several threads.

use candle_core::{CpuStorage, Layout, Result, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Multiplications below which handing work to the pool costs more than it saves.
const WORTH_THREADS: usize = 1 << 17;

/// The elements of a contiguous f32 tensor.
pub fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous f32 tensor, got {layout:?}")
    };
    Ok(&data[start..end])
}

/// As [`slice`], to write.
pub fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous f32 tensor, got {layout:?}")
    };
    Ok(&mut data[start..end])
}

/// Calls `compute(i, chunk)` for each chunk of `out`, on the pool when `work` multiplications are worth it.
pub fn for_each_chunk(out: &mut [f32], chunk: usize, work: usize, compute: impl Fn(usize, &mut [f32]) + Sync + Send) {
    if work < WORTH_THREADS || rayon::current_num_threads() == 1 {
        out.chunks_mut(chunk).enumerate().for_each(|(i, chunk)| compute(i, chunk));
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(|(i, chunk)| compute(i, chunk));
    }
}

/// Sum of the products of `a` and `b`, in the vector width of the machine.
#[inline(always)]
pub fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = S::as_simd_f32s(a);
    let (b, b_rest) = S::as_simd_f32s(b);
    let (a4, a1) = pulp::as_arrays::<4, _>(a);
    let (b4, b1) = pulp::as_arrays::<4, _>(b);
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (a, b) in a4.iter().zip(b4) {
        for lane in 0..4 {
            sums[lane] = simd.mul_add_f32s(a[lane], b[lane], sums[lane]);
        }
    }
    for (a, b) in a1.iter().zip(b1) {
        sums[0] = simd.mul_add_f32s(*a, *b, sums[0]);
    }
    let pairs = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
    let mut sum = simd.reduce_sum_f32s(simd.add_f32s(pairs[0], pairs[1]));
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += a * b;
    }
    sum
}

/// `out += scale · a`.
#[inline(always)]
pub fn add_scaled<S: Simd>(simd: S, out: &mut [f32], scale: f32, a: &[f32]) {
    let (out, out_rest) = S::as_mut_simd_f32s(out);
    let (a, a_rest) = S::as_simd_f32s(a);
    let scales = simd.splat_f32s(scale);
    for (out, a) in out.iter_mut().zip(a) {
        *out = simd.mul_add_f32s(scales, *a, *out);
    }
    for (out, a) in out_rest.iter_mut().zip(a_rest) {
        *out += scale * a;
    }
}

/// Runs `op` compiled for the best instructions of this machine.
pub fn vectorised<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

//! What the CPU references share: slices of tensors, and when work is worth several threads.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::element::Stored;

/// Multiplications below which handing work to the pool costs more than it saves.
const WORTH_THREADS: usize = 1 << 20;

/// The elements of a contiguous f32 tensor.
pub fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    stored(storage, layout)
}

/// The elements of a contiguous tensor of `E`.
pub fn stored<'a, E: Stored>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [E]> {
    let (Some(data), Some((start, end))) = (E::slice(storage), layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor of {:?}, got {:?}, {layout:?}", E::DTYPE, storage.dtype())
    };
    Ok(&data[start..end])
}

/// As [`stored`], to write.
pub fn stored_mut<'a, E: Stored>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [E]> {
    let dtype = storage.dtype();
    let (Some(data), Some((start, end))) = (E::slice_mut(storage), layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor of {:?}, got {dtype:?}, {layout:?}", E::DTYPE)
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
    let [sum] = dots::<S, 1, 4>(simd, a, [b]);
    sum
}

/// Sum of all of `sums`, which it uses up: halves are added to halves, as vectors.
#[inline(always)]
pub fn sum<const LANES: usize>(sums: &mut [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

/// Products of `a` with `ROWS` rows of its length, `a` loaded once. `CHAINS` sums of each row grow side
/// by side, because one addition waits for the one before it.
#[inline(always)]
pub fn dots<S: Simd, const ROWS: usize, const CHAINS: usize>(simd: S, a: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
    let (a, a_rest) = S::as_simd_f32s(a);
    let rows = rows.map(|row| S::as_simd_f32s(row));
    let (a_chunks, a_last) = pulp::as_arrays::<CHAINS, _>(a);
    let chunks = rows.map(|(row, _)| pulp::as_arrays::<CHAINS, _>(&row[..a.len()]));
    let mut sums = [[simd.splat_f32s(0.0); CHAINS]; ROWS];
    for (i, a) in a_chunks.iter().enumerate() {
        for r in 0..ROWS {
            let row = &chunks[r].0[i];
            for c in 0..CHAINS {
                sums[r][c] = simd.mul_add_f32s(a[c], row[c], sums[r][c]);
            }
        }
    }
    let mut out = [0.0; ROWS];
    for r in 0..ROWS {
        for (a, row) in a_last.iter().zip(chunks[r].1) {
            sums[r][0] = simd.mul_add_f32s(*a, *row, sums[r][0]);
        }
        let all = sums[r].into_iter().reduce(|a, b| simd.add_f32s(a, b)).unwrap_or(simd.splat_f32s(0.0));
        let rest: f32 = a_rest.iter().zip(rows[r].1).map(|(a, b)| a * b).sum();
        out[r] = simd.reduce_sum_f32s(all) + rest;
    }
    out
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

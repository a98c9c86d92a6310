//! Products of a few rows: every weight is read once, for all of them. Weights in f16 must be finite.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use super::activations::Activations;
use super::kernels::{BlockProducts, Kernels};
use super::{Blocks, Weight};
use crate::ops::cpu;
use crate::ops::element::Element;

/// Weights that are widened at a time: a whole number of vectors of every machine, as many as stay in registers.
const WIDENED: usize = 64;

/// `[rows, in]` to `[rows, out]`.
pub fn forward(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    match weight {
        Weight::Dense(weight) => x.apply_op2_no_bwd(weight, &Dense),
        Weight::Blocks(blocks) => x.apply_op1_no_bwd(&Quantised(blocks)),
    }
}

struct Dense;

impl CustomOp2 for Dense {
    fn name(&self) -> &'static str {
        "linear-few-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (outer, _) = w_layout.shape().dims2()?;
        let x = Inputs { x: cpu::slice(x, x_layout)?, rows, inner };
        let out = match w {
            CpuStorage::F16(_) => x.times(cpu::stored::<f16>(w, w_layout)?, outer),
            CpuStorage::BF16(_) => x.times(cpu::stored::<bf16>(w, w_layout)?, outer),
            _ => x.times(cpu::stored::<f32>(w, w_layout)?, outer),
        };
        Ok((CpuStorage::F32(out), (rows, outer).into()))
    }
}

/// The rows that are multiplied.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    x: &'a [f32],
    rows: usize,
    inner: usize,
}

impl<'a> Inputs<'a> {
    fn row(&self, r: usize) -> &'a [f32] {
        &self.x[r * self.inner..(r + 1) * self.inner]
    }

    fn times<E: Element>(self, w: &[E], outer: usize) -> Vec<f32> {
        columns(self.rows, self.inner, outer, |first, columns| {
            let w = &w[first * self.inner..];
            cpu::vectorised(Products { x: self, w, columns });
        })
    }
}

/// Has `compute(first, columns)` write the products of the weights' rows from `first` on, those of each weight row
/// one after another, and turns them to rows.
fn columns(rows: usize, inner: usize, outer: usize, compute: impl Fn(usize, &mut [f32]) + Sync + Send) -> Vec<f32> {
    let mut columns = vec![0f32; rows * outer];
    let block = outer.div_ceil(rayon::current_num_threads()).max(16);
    if rows > 0 {
        cpu::for_each_chunk(&mut columns, block * rows, rows * outer * inner, |i, columns| compute(i * block, columns));
    }
    transpose(columns, rows)
}

/// `columns[o · rows + r]` is the product of row `o` of `w` and row `r` of `x`.
struct Products<'a, E> {
    x: Inputs<'a>,
    w: &'a [E],
    columns: &'a mut [f32],
}

impl<E: Element> WithSimd for Products<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, columns } = self;
        for (column, w) in columns.chunks_exact_mut(x.rows).zip(w.chunks_exact(x.inner)) {
            let quads = x.rows / 4 * 4;
            for r in (0..quads).step_by(4) {
                let rows = [x.row(r), x.row(r + 1), x.row(r + 2), x.row(r + 3)];
                column[r..r + 4].copy_from_slice(&dots::<S, E, 4, 2>(simd, w, rows));
            }
            for (r, y) in column.iter_mut().enumerate().skip(quads) {
                [*y] = dots::<S, E, 1, 4>(simd, w, [x.row(r)]);
            }
        }
    }
}

/// Products of a row of weights with `ROWS` rows of its length. Weights are widened once, a few at a time; `CHAINS`
/// sums of each row grow side by side, because one addition waits for the one before it.
#[inline(always)]
fn dots<S: Simd, E: Element, const ROWS: usize, const CHAINS: usize>(
    simd: S,
    w: &[E],
    rows: [&[f32]; ROWS],
) -> [f32; ROWS] {
    let (chunks, rest) = w.as_chunks::<WIDENED>();
    // Closures are not inlined into the dispatch; neither is anything over arrays that takes one.
    let (mut row_chunks, mut row_rests) = ([&[][..]; ROWS], [&[][..]; ROWS]);
    for r in 0..ROWS {
        let (chunks_of_row, rest) = rows[r].as_chunks::<WIDENED>();
        (row_chunks[r], row_rests[r]) = (&chunks_of_row[..chunks.len()], rest);
    }
    let mut sums = [[simd.splat_f32s(0.0); CHAINS]; ROWS];
    for (i, chunk) in chunks.iter().enumerate() {
        let mut wide = [0f32; WIDENED];
        for (wide, w) in wide.iter_mut().zip(chunk) {
            *wide = w.widen_finite();
        }
        let (wide, _) = pulp::as_arrays::<CHAINS, _>(S::as_simd_f32s(&wide).0);
        let mut xs = [&[][..]; ROWS];
        for r in 0..ROWS {
            xs[r] = &pulp::as_arrays::<CHAINS, _>(S::as_simd_f32s(&row_chunks[r][i]).0).0[..wide.len()];
        }
        for (n, w) in wide.iter().enumerate() {
            for r in 0..ROWS {
                let x = &xs[r][n];
                for chain in 0..CHAINS {
                    sums[r][chain] = simd.mul_add_f32s(w[chain], x[chain], sums[r][chain]);
                }
            }
        }
    }
    let mut out = [0f32; ROWS];
    for r in 0..ROWS {
        let mut sum = simd.splat_f32s(0.0);
        for of_chain in sums[r] {
            sum = simd.add_f32s(sum, of_chain);
        }
        out[r] = simd.reduce_sum_f32s(sum);
        for (w, x) in rest.iter().zip(row_rests[r]) {
            out[r] += w.widen_finite() * x;
        }
    }
    out
}

struct Quantised<'a>(&'a Blocks);

impl CustomOp1 for Quantised<'_> {
    fn name(&self) -> &'static str {
        "quantised-few-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, inner) = layout.shape().dims2()?;
        let (outer, _) = self.0.dims();
        let (weights, row_bytes) = (self.0.bytes()?, self.0.row_bytes());
        let activations = Activations::new(cpu::slice(x, layout)?, inner, self.0.format());
        let kernels = Kernels::new();
        let out = columns(rows, inner, outer, |first, columns| {
            kernels.run(BlockProducts {
                format: self.0.format(),
                weights: &weights[first * row_bytes..],
                row_bytes,
                activations: &activations,
                columns,
            });
        });
        Ok((CpuStorage::F32(out), (rows, outer).into()))
    }
}

fn transpose(columns: Vec<f32>, rows: usize) -> Vec<f32> {
    if rows <= 1 {
        return columns;
    }
    let outer = columns.len() / rows;
    (0..rows).flat_map(|r| (0..outer).map(move |o| (o, r))).map(|(o, r)| columns[o * rows + r]).collect()
}

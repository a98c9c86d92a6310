//! Causal attention of each row to the cached keys of its own sequence, query heads sharing key
//! heads in groups (Ainslie et al. 2023), softmax in f32.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

use super::kv_cache::KvShape;
use super::rope::rotate;
use super::{Batch, KvCache, RopeTable, cpu};

/// `qkv` (`[rows, q heads + 2 · kv heads, head dim]` flattened, queries not yet rotated) and the cache
/// of `layer`, which holds the rows' own keys already, to `[rows, q heads · head dim]`.
pub fn attention(qkv: &Tensor, cache: &KvCache, layer: usize, rope: &RopeTable, batch: &Batch) -> Result<Tensor> {
    qkv.apply_op3_no_bwd(cache.layer(layer), rope.tensor(), &Attention { batch, rope })
}

struct Attention<'a> {
    batch: &'a Batch,
    rope: &'a RopeTable,
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        cache: &CpuStorage,
        cache_layout: &Layout,
        rope: &CpuStorage,
        rope_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = KvShape::of(cache_layout)?;
        let (rows, width) = qkv_layout.shape().dims2()?;
        let (hd, kv_heads) = (shape.head_dim, shape.kv_heads);
        let q_width = width - 2 * kv_heads * hd;
        let group_width = q_width / kv_heads;
        let (qkv, rope) = (cpu::slice(qkv, qkv_layout)?, cpu::slice(rope, rope_layout)?);
        let cache = cpu::slice(cache, cache_layout)?;
        let seen: usize = self.batch.rows().iter().map(|(_, position)| position + 1).sum();
        let mut out = vec![0f32; rows * q_width];
        cpu::for_each_chunk(&mut out, group_width, 2 * seen * q_width, |i, out| {
            let (row, head) = (i / kv_heads, i % kv_heads);
            let (slot, position) = self.batch.rows()[row];
            let keys = shape.keys(slot, head);
            let values = keys + shape.value_offset();
            let used = (position + 1) * hd;
            cpu::vectorised(Group {
                queries: &qkv[row * width + head * group_width..][..group_width],
                angles: &rope[self.rope.row(position, self.batch.long(row)) * hd..][..hd],
                keys: &cache[keys..keys + used],
                values: &cache[values..values + used],
                out,
            });
        });
        Ok((CpuStorage::F32(out), (rows, q_width).into()))
    }
}

/// One position's query heads that share a key head.
struct Group<'a> {
    queries: &'a [f32],
    angles: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hd = self.angles.len();
        let mut query = vec![0f32; hd];
        let mut weights = vec![0f32; self.keys.len() / hd];
        for (q, out) in self.queries.chunks_exact(hd).zip(self.out.chunks_exact_mut(hd)) {
            rotate(q, self.angles, (hd as f32).sqrt().recip(), &mut query);
            let mut highest = f32::NEG_INFINITY;
            for (weight, key) in weights.iter_mut().zip(self.keys.chunks_exact(hd)) {
                *weight = cpu::dot(simd, &query, key);
                highest = highest.max(*weight);
            }
            let mut sum = 0.0;
            for weight in &mut weights {
                *weight = (*weight - highest).exp();
                sum += *weight;
            }
            for (weight, value) in weights.iter().zip(self.values.chunks_exact(hd)) {
                cpu::add_scaled(simd, out, weight / sum, value);
            }
        }
    }
}

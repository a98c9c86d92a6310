//! Causal attention of each row to the cached keys of its own sequence, query heads sharing key
//! heads in groups (Ainslie et al. 2023), softmax in f32.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use super::kv_cache::{BLOCK_TOKENS, Bytes, Kept, KvShape, Place, blocks_for};
use super::rope::rotate;
use super::{Batch, KvCache, KvFormat, RopeTable, cpu};

#[cfg(feature = "cuda")]
mod on_gpu;
#[cfg(feature = "cuda")]
pub use on_gpu::{numbers_of_parts, takes_products, worker_bytes};

/// `qkv` (`[rows, q heads + 2 · kv heads, head dim]` flattened, queries not yet rotated) and the cache
/// of `layer`, which holds the rows' own keys already, to `[rows, q heads · head dim]`, rounded to `out`: f32, or on a GPU
/// the cache's 16 bits, or any where it has 8. A GPU rounds queries and weights to the cache's format where it has 16 bits,
/// to f16 where it has 8.
pub fn attention(
    qkv: &Tensor,
    cache: &KvCache,
    layer: usize,
    rope: &RopeTable,
    batch: &Batch,
    out: DType,
) -> Result<Tensor> {
    attend(qkv, cache, layer, &Attention { batch, rope, kept: cache.format(), out, stores: false })
}

/// As [`attention`], of rows whose own keys and values are not in the cache yet and will be ([`KvCache::store`]).
///
/// # Errors
/// Those of both.
pub fn store_and_attend(
    qkv: &Tensor,
    cache: &KvCache,
    layer: usize,
    rope: &RopeTable,
    batch: &Batch,
    out: DType,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_gpu::stores(cache, rope, batch)? {
        rope.check(batch)?;
        return attend(qkv, cache, layer, &Attention { batch, rope, kept: cache.format(), out, stores: true });
    }
    cache.store(layer, qkv, rope, batch)?;
    attention(qkv, cache, layer, rope, batch, out)
}

fn attend(qkv: &Tensor, cache: &KvCache, layer: usize, attention: &Attention<'_>) -> Result<Tensor> {
    let (format, out) = (cache.format(), attention.out);
    let gives = match format {
        KvFormat::Numbers(dtype) => out == dtype,
        KvFormat::Bytes(_) => matches!(out, DType::F16 | DType::BF16),
    };
    if out != DType::F32 && (qkv.device().is_cpu() || !gives) {
        bail!("attention over a cache of {} cannot give {out:?} there", format.name())
    }
    qkv.apply_op3_no_bwd(cache.layer(layer), attention.rope.tensor(), attention)
}

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CPU gives f32 alone"))]
struct Attention<'a> {
    batch: &'a Batch,
    rope: &'a RopeTable,
    /// How the cache keeps keys and values.
    kept: KvFormat,
    out: DType,
    /// Whether the rows' own keys and values are stored first, which a GPU does where all rows are single ones.
    stores: bool,
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
        let (qkv, rope) = ((qkv, qkv_layout), (rope, rope_layout));
        match self.kept {
            KvFormat::Bytes(format) => {
                let bytes = cpu::stored::<u8>(cache, cache_layout)?;
                self.attend(qkv, (Bytes { bytes, format }, cache_layout), rope)
            }
            KvFormat::Numbers(DType::F16) => {
                self.attend(qkv, (cpu::stored::<f16>(cache, cache_layout)?, cache_layout), rope)
            }
            KvFormat::Numbers(DType::BF16) => {
                self.attend(qkv, (cpu::stored::<bf16>(cache, cache_layout)?, cache_layout), rope)
            }
            KvFormat::Numbers(_) => self.attend(qkv, (cpu::stored::<f32>(cache, cache_layout)?, cache_layout), rope),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        cache: &candle_core::CudaStorage,
        cache_layout: &Layout,
        rope: &candle_core::CudaStorage,
        rope_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (qkv, cache, rope) = ((qkv, qkv_layout), (cache, cache_layout), (rope, rope_layout));
        match (self.kept, self.out) {
            (KvFormat::Numbers(DType::F16), DType::F16) => self.launch::<f16, f16>(qkv, cache, rope),
            (KvFormat::Numbers(DType::F16), _) => self.launch::<f16, f32>(qkv, cache, rope),
            (KvFormat::Numbers(DType::BF16), DType::BF16) => self.launch::<bf16, bf16>(qkv, cache, rope),
            (KvFormat::Numbers(DType::BF16), _) => self.launch::<bf16, f32>(qkv, cache, rope),
            (KvFormat::Numbers(_), _) => self.launch::<f32, f32>(qkv, cache, rope),
            (KvFormat::Bytes(_), DType::F16) => self.launch::<u8, f16>(qkv, cache, rope),
            (KvFormat::Bytes(_), DType::BF16) => self.launch::<u8, bf16>(qkv, cache, rope),
            (KvFormat::Bytes(_), _) => self.launch::<u8, f32>(qkv, cache, rope),
        }
    }
}

impl Attention<'_> {
    fn attend(
        &self,
        qkv: (&CpuStorage, &Layout),
        (cache, layout): (impl Kept, &Layout),
        rope: (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let shape = KvShape::of(layout, self.kept)?;
        shape.check(self.batch)?;
        let (rows, width) = qkv.1.shape().dims2()?;
        let (hd, kv_heads) = (shape.head_dim, shape.kv_heads);
        let q_width = width - 2 * kv_heads * hd;
        let group_width = q_width / kv_heads;
        let (qkv, rope) = (cpu::slice(qkv.0, qkv.1)?, cpu::slice(rope.0, rope.1)?);
        let seen: usize = self.batch.rows().iter().map(|row| row.position + 1).sum();
        let mut out = vec![0f32; rows * q_width];
        cpu::for_each_chunk(&mut out, group_width, 2 * seen * q_width, |i, out| {
            let (index, head) = (i / kv_heads, i % kv_heads);
            let row = self.batch.rows()[index];
            cpu::vectorised(Group {
                queries: &qkv[index * width + head * group_width..][..group_width],
                angles: &rope[self.rope.row(row.position, row.long) * hd..][..hd],
                cached: Cached {
                    cache,
                    shape,
                    head,
                    blocks: self.batch.blocks(row.sequence),
                    tokens: row.position + 1,
                },
                out,
            });
        });
        Ok((CpuStorage::F32(out), (rows, q_width).into()))
    }
}

/// One head's keys and values of a sequence.
struct Cached<'a, C> {
    /// Those of all blocks.
    cache: C,
    shape: KvShape,
    head: usize,
    blocks: &'a [u32],
    tokens: usize,
}

impl<C: Kept> Cached<'_, C> {
    /// The keys, or values, in the sequence's `n`-th block: its rows, one every stride, their number and stride.
    #[inline(always)]
    fn block<'b>(&'b self, of_values: bool, n: usize, scratch: &'b mut Vec<f32>) -> (&'b [f32], usize, usize) {
        let rows = BLOCK_TOKENS.min(self.tokens - n * BLOCK_TOKENS);
        let place = Place { of_values, block: self.blocks[n], token: 0, head: self.head };
        let (wide, stride) = self.cache.rows(&self.shape, place, rows, scratch);
        (wide, rows, stride)
    }
}

/// One position's query heads that share a key head.
struct Group<'a, C> {
    queries: &'a [f32],
    angles: &'a [f32],
    cached: Cached<'a, C>,
    out: &'a mut [f32],
}

impl<C: Kept> WithSimd for Group<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (hd, tokens) = (self.angles.len(), self.cached.tokens);
        let mut queries = vec![0f32; self.queries.len()];
        for (query, rotated) in self.queries.chunks_exact(hd).zip(queries.chunks_exact_mut(hd)) {
            rotate(query, self.angles, (hd as f32).sqrt().recip(), rotated);
        }
        let mut weights = vec![0f32; tokens * (queries.len() / hd)];
        let mut wide = Vec::new();
        for n in 0..blocks_for(tokens) {
            let (keys, rows, stride) = self.cached.block(false, n, &mut wide);
            for (token, key) in (n * BLOCK_TOKENS..).zip(keys.chunks(stride).take(rows)) {
                for (query, weights) in queries.chunks_exact(hd).zip(weights.chunks_exact_mut(tokens)) {
                    weights[token] = cpu::dot(simd, query, &key[..hd]);
                }
            }
        }
        weights.chunks_exact_mut(tokens).for_each(softmax);
        for n in 0..blocks_for(tokens) {
            let (values, rows, stride) = self.cached.block(true, n, &mut wide);
            for (token, value) in (n * BLOCK_TOKENS..).zip(values.chunks(stride).take(rows)) {
                for (out, weights) in self.out.chunks_exact_mut(hd).zip(weights.chunks_exact(tokens)) {
                    cpu::add_scaled(simd, out, weights[token], &value[..hd]);
                }
            }
        }
    }
}

#[inline(always)]
fn softmax(weights: &mut [f32]) {
    let highest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for weight in &mut *weights {
        *weight = (*weight - highest).exp();
        sum += *weight;
    }
    for weight in weights {
        *weight /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EightBits, Segment};
    use super::*;
    use candle_core::Device;

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const WIDTH: usize = 16;

    /// Keys of each head, then values of each, `[tokens, width]`, in the order of the sequence.
    fn cached(cache: &KvCache, blocks: &[u32], tokens: usize) -> Vec<Vec<f64>> {
        if let KvFormat::Bytes(format) = cache.format() {
            return cached_bytes(cache, format, blocks, tokens);
        }
        let blocks = Tensor::new(blocks, &Device::Cpu).unwrap();
        let of = |part: usize, head: usize| {
            let part = cache.layer(0).get(part).unwrap().index_select(&blocks, 0).unwrap();
            let head = part.narrow(1, head, 1).unwrap().flatten(0, 2).unwrap().narrow(0, 0, tokens).unwrap();
            head.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        (0..2).flat_map(|part| (0..KV_HEADS).map(move |head| (part, head))).map(|(part, head)| of(part, head)).collect()
    }

    fn cached_bytes(cache: &KvCache, format: EightBits, blocks: &[u32], tokens: usize) -> Vec<Vec<f64>> {
        let bytes: Vec<u8> = cache.layer(0).flatten_all().unwrap().to_vec1().unwrap();
        let shape = cache.shape().unwrap();
        let of = |of_values: bool, head: usize| {
            let token = |n: usize| {
                let place = Place { of_values, block: blocks[n / BLOCK_TOKENS], token: n % BLOCK_TOKENS, head };
                let scale = f32::from_le_bytes(*bytes[shape.scale(place)..].first_chunk().unwrap());
                let mut wide = [0f32; WIDTH];
                format.widen(&bytes[shape.numbers(place)..][..WIDTH], scale, &mut wide);
                wide.map(f64::from)
            };
            (0..tokens).flat_map(token).collect()
        };
        (0..2).flat_map(|part| (0..KV_HEADS).map(move |head| of(part == 1, head))).collect()
    }

    /// The last of `rows` rows, and what f64 makes of the cached numbers: both `[heads · width]`, and how much the rounding of
    /// scores in f32 may change that, which is much where several keys are nearly as near.
    fn last_row(format: KvFormat, rows: usize, scale: f64) -> (Vec<f32>, Vec<(f64, f64)>) {
        let device = Device::Cpu;
        let rope = RopeTable::new(rows, WIDTH, 10_000.0, &device).unwrap();
        // The blocks of the sequence lie backwards, others between them.
        let blocks: Vec<u32> = (1..=blocks_for(rows) as u32).rev().map(|block| 2 * block).collect();
        let cache = KvCache::new(1, 2 * blocks.len() + 1, KV_HEADS, WIDTH, format, &device).unwrap();
        let qkv = (Tensor::randn(0f32, 1.0, (rows, (HEADS + 2 * KV_HEADS) * WIDTH), &device).unwrap() * scale).unwrap();
        let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows, long: false }]);
        cache.store(0, &qkv, &rope, &batch).unwrap();
        let out: Vec<Vec<f32>> = attention(&qkv, &cache, 0, &rope, &batch, DType::F32).unwrap().to_vec2().unwrap();
        let cached = cached(&cache, &blocks, rows);
        let queries: Vec<Vec<f32>> = qkv.to_vec2().unwrap();
        let angles: Vec<Vec<f32>> = rope.tensor().to_vec2().unwrap();
        let mut want = Vec::new();
        for head in 0..HEADS {
            let mut query = [0f32; WIDTH];
            rotate(&queries[rows - 1][head * WIDTH..][..WIDTH], &angles[rows - 1], 1.0, &mut query);
            let [keys, values] = [0, 1].map(|part| &cached[part * KV_HEADS + head / 2][..]);
            let score = |key: &[f64]| key.iter().zip(query).map(|(k, q)| k * f64::from(q)).sum::<f64>() / 4.0;
            let size = |key: &[f64]| key.iter().zip(query).map(|(k, q)| (k * f64::from(q)).abs()).sum::<f64>() / 4.0;
            let largest = keys.chunks_exact(WIDTH).map(size).fold(0.0, f64::max);
            let scores: Vec<f64> = keys.chunks_exact(WIDTH).map(score).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mix = |i: usize| values.chunks_exact(WIDTH).zip(&weights).map(|(v, w)| w / sum * v[i]).sum::<f64>();
            let apart = |i: usize, mixed: f64| {
                values.chunks_exact(WIDTH).zip(&weights).map(|(v, w)| w / sum * (v[i] - mixed).abs()).sum::<f64>()
            };
            let rounded = largest * f64::from(f32::EPSILON) * 8.0;
            want.extend((0..WIDTH).map(|i| (mix(i), rounded * apart(i, mix(i)))));
        }
        (out[rows - 1].clone(), want)
    }

    #[test]
    fn long_rows_are_what_f64_makes_of_the_cached_numbers() {
        // Rows longer than 256, where sums in 16 bits go wrong, and no whole number of tiles.
        let formats = [(DType::F32, 130), (DType::F16, 700), (DType::BF16, 700), (DType::BF16, 1)]
            .map(|(dtype, rows)| (KvFormat::Numbers(dtype), rows));
        let bytes = [(EightBits::Int8, 700), (EightBits::Fp8, 700), (EightBits::Fp8, 1)]
            .map(|(format, rows)| (KvFormat::Bytes(format), rows));
        for (format, rows) in formats.into_iter().chain(bytes) {
            // Products of numbers around 300 are beyond f16.
            for scale in [0.5, 300.0] {
                let (got, want) = last_row(format, rows, scale);
                for (got, (want, rounded)) in got.iter().zip(&want) {
                    let near = (f64::from(*got) - want).abs() < 2e-4 * scale + rounded;
                    assert!(near, "{format:?}, {rows} rows times {scale}: {got} vs {want}");
                }
            }
        }
    }
}

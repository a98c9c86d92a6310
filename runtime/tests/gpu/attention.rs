//! Attention over the KV cache and within tiles, and what is written to the cache.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use vlm_runtime::ops::{
    BLOCK_TOKENS, Batch, EightBits, KvCache, KvFormat, RopeTable, Segment, attention, nth_table, room_for,
    store_and_attend, tile_attention,
};

use crate::gpu::{assert_near, assert_not_finite, few, gpu, random};

const SLOTS: usize = 5;
const TOKENS: usize = 700;

/// The blocks of each slot.
static TABLES: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| (0..SLOTS).map(|slot| nth_table(slot, TOKENS)).collect());

/// Heads, heads of keys and values, width of a head.
const GEOMETRIES: [(usize, usize, usize); 9] =
    [(4, 4, 64), (8, 2, 128), (14, 2, 64), (12, 1, 96), (6, 3, 80), (2, 1, 8), (4, 2, 10), (3, 3, 128), (9, 1, 128)];

/// How attention is tested: the format of the cache, and of what it gives; whether attention itself stores the rows' own keys
/// and values.
#[derive(Clone, Copy, Debug)]
struct How {
    cache: KvFormat,
    out: DType,
    stores: bool,
}

/// What each of some steps gives, and the cache behind each. Where `caches` are given and attention does not store, it is to
/// those: what falls to the other side when it is rounded says nothing about attention.
fn run(
    device: &Device,
    (heads, kv_heads, width): (usize, usize, usize),
    how: How,
    steps: &[(Vec<Segment<'_>>, Tensor)],
    caches: Option<&[Tensor]>,
) -> (Vec<Tensor>, Vec<Tensor>) {
    let rope = RopeTable::new(TOKENS, width, 10_000.0, device).unwrap();
    let cache = KvCache::new(2, room_for(SLOTS, TOKENS), kv_heads, width, how.cache, device).unwrap();
    let step = |(n, (segments, qkv)): (usize, &(Vec<Segment<'_>>, Tensor))| {
        let (batch, qkv) = (Batch::new(segments), qkv.to_device(device).unwrap());
        assert_eq!(qkv.dim(1).unwrap(), (heads + 2 * kv_heads) * width);
        let here = || cache.layer(1).to_device(&Device::Cpu).unwrap().copy().unwrap();
        if how.stores {
            let out = store_and_attend(&qkv, &cache, 1, &rope, &batch, how.out).unwrap();
            return (out, here());
        }
        cache.store(1, &qkv, &rope, &batch).unwrap();
        let stored = here();
        if let Some(caches) = caches {
            cache.layer(1).slice_set(&caches[n].to_device(device).unwrap(), 0, 0).unwrap();
        }
        (attention(&qkv, &cache, 1, &rope, &batch, how.out).unwrap(), stored)
    };
    steps.iter().enumerate().map(step).unzip()
}

/// What a cache holds, in f32.
fn numbers(cache: &Tensor, format: KvFormat, width: usize) -> Tensor {
    let KvFormat::Bytes(format) = format else { return cache.to_dtype(DType::F32).unwrap() };
    let bytes: Vec<u8> = cache.flatten_all().unwrap().to_vec1().unwrap();
    let mut all = Vec::new();
    for head in bytes.chunks_exact(BLOCK_TOKENS * (width + 4)) {
        let (held, scales) = head.split_at(BLOCK_TOKENS * width);
        for (held, scale) in held.chunks_exact(width).zip(scales.as_chunks().0) {
            let mut wide = vec![0f32; width];
            format.widen(held, f32::from_le_bytes(*scale), &mut wide);
            all.extend(wide);
        }
    }
    Tensor::new(all, &Device::Cpu).unwrap()
}

fn segment(slot: usize, start: usize, rows: usize) -> Segment<'static> {
    Segment { blocks: &TABLES[slot], start, rows, long: false }
}

/// What a cache keeps, what attention to it can give, how near that is, and how far a number is from the next.
struct Case {
    cache: KvFormat,
    outs: &'static [DType],
    limit: f32,
    step: f32,
}

const CASES: [Case; 5] = [
    Case { cache: KvFormat::Numbers(DType::F32), outs: &[DType::F32], limit: 2e-5, step: 0.0 },
    Case { cache: KvFormat::Numbers(DType::F16), outs: &[DType::F32, DType::F16], limit: 2e-3, step: 0.0 },
    Case { cache: KvFormat::Numbers(DType::BF16), outs: &[DType::F32, DType::BF16], limit: 1.6e-2, step: 0.0 },
    // What is given in bf16 is rounded to that.
    Case {
        cache: KvFormat::Bytes(EightBits::Int8),
        outs: &[DType::F32, DType::F16, DType::BF16],
        limit: 1.6e-2,
        step: 6e-2,
    },
    Case {
        cache: KvFormat::Bytes(EightBits::Fp8),
        outs: &[DType::F32, DType::F16, DType::BF16],
        limit: 1.6e-2,
        step: 0.6,
    },
];

#[test]
fn prompts_and_single_tokens_mixed_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (heads, kv_heads, width) in few(GEOMETRIES) {
        let of = |segments: Vec<Segment<'static>>| {
            let rows = segments.iter().map(|segment| segment.rows).sum();
            (segments, random(&[rows, (heads + 2 * kv_heads) * width]))
        };
        let steps = [
            of(vec![segment(0, 0, 1)]),
            of(vec![segment(2, 0, 33), segment(0, 1, 1), segment(4, 0, 500)]),
            of(vec![segment(4, 500, 64), segment(2, 33, 1), segment(1, 0, 31)]),
            of(vec![segment(4, 564, 1), segment(2, 34, 1), segment(1, 31, 1), segment(0, 2, 1)]),
            of(vec![segment(4, 565, 135), segment(2, 35, 2)]),
        ];
        let geometry = (heads, kv_heads, width);
        for Case { cache, outs, limit, step } in CASES {
            let exact = How { cache, out: DType::F32, stores: false };
            let (want, cached) = run(&Device::Cpu, geometry, exact, &steps, None);
            let hows = outs.iter().flat_map(|out| [false, true].map(|stores| How { cache, out: *out, stores }));
            for how in hows {
                let (got, cached_there) = run(&gpu, geometry, how, &steps, Some(&cached));
                let what = format!("{heads} and {kv_heads} heads of {width}, {how:?}");
                for (n, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert_eq!(got.dtype(), how.out);
                    let limit = if how.stores { limit.max(step) } else { limit };
                    assert_near(got, want, limit, &format!("step {n} of {what}"));
                    // Keys are rotated with other roundings, which may fall to either side.
                    let [there, here] = [&cached_there[n], &cached[n]].map(|all| numbers(all, cache, width));
                    assert_near(&there, &here, step.max(2.0 * limit), &format!("cache behind step {n} of {what}"));
                }
            }
        }
    }
}

#[test]
fn large_scores_and_numbers_that_are_none_are_not_lost() {
    let Some(gpu) = gpu() else { return };
    let geometry = (4, 2, 64);
    let prompt = (random(&[100, 8 * 64]) * 300.0).unwrap();
    let single = (random(&[1, 8 * 64]) * 300.0).unwrap();
    let steps = [(vec![segment(0, 0, 100)], prompt.clone()), (vec![segment(0, 100, 1)], single.clone())];
    let exact = How { cache: DType::F32.into(), out: DType::F32, stores: false };
    let (want, _) = run(&Device::Cpu, geometry, exact, &steps, None);
    let (got, _) = run(&gpu, geometry, exact, &steps, None);
    for (got, want) in got.iter().zip(&want) {
        assert_near(got, want, 2.0, "scores of tens of thousands");
    }
    let mut values: Vec<f32> = prompt.flatten_all().unwrap().to_vec1().unwrap();
    values[70 * 512 + 3] = f32::NAN;
    let broken = Tensor::from_vec(values, (100, 512), &Device::Cpu).unwrap();
    let steps = [(vec![segment(0, 0, 100)], broken), (vec![segment(1, 0, 1)], single.clone())];
    let broken_value = {
        let mut values: Vec<f32> = single.flatten_all().unwrap().to_vec1().unwrap();
        values[6 * 64 + 5] = f32::INFINITY;
        Tensor::from_vec(values, (1, 512), &Device::Cpu).unwrap()
    };
    for Case { cache, .. } in CASES {
        let how = How { cache, out: DType::F32, stores: true };
        let single = [(vec![segment(0, 0, 1)], broken_value.clone())];
        assert_not_finite(&run(&gpu, geometry, how, &single, None).0[0], "a value that is no number");
        let (got, _) = run(&gpu, geometry, how, &steps, None);
        assert_not_finite(&got[0].narrow(0, 70, 1).unwrap(), "a query that is no number");
        let others = [got[0].narrow(0, 0, 70).unwrap(), got[0].narrow(0, 71, 29).unwrap(), got[1].clone()];
        for part in others {
            assert!(part.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn a_format_that_the_cache_does_not_have_is_refused() {
    let Some(gpu) = gpu() else { return };
    let rope = RopeTable::new(TOKENS, 8, 100.0, &gpu).unwrap();
    let cache = KvCache::new(1, 2, 1, 8, DType::F16, &gpu).unwrap();
    let (qkv, batch) = (random(&[1, 24]).to_device(&gpu).unwrap(), Batch::new(&[segment(0, 0, 1)]));
    assert!(attention(&qkv, &cache, 0, &rope, &batch, DType::BF16).is_err());
}

#[test]
fn places_outside_of_the_cache_are_refused() {
    let Some(gpu) = gpu() else { return };
    let rope = RopeTable::new(TOKENS, 8, 100.0, &gpu).unwrap();
    let cache = KvCache::new(1, 2, 1, 8, DType::F32, &gpu).unwrap();
    let qkv = random(&[1, 24]).to_device(&gpu).unwrap();
    for (blocks, start) in [(&[2u32][..], 0), (&[1], 32), (&[], 0)] {
        let outside = Segment { blocks, start, rows: 1, long: false };
        assert!(cache.store(0, &qkv, &rope, &Batch::new(&[outside])).is_err(), "{outside:?}");
    }
}

#[test]
fn attention_within_tiles_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (tiles, rows, heads, width) in
        few([(1, 1, 1, 4), (2, 17, 4, 8), (3, 577, 16, 64), (1, 1025, 4, 128), (2, 50, 3, 10), (7, 33, 2, 96)])
    {
        let all = random(&[tiles * rows, 3 * heads * width]);
        let there = all.to_device(&gpu).unwrap();
        let parts = |all: &Tensor| [0, 1, 2].map(|n| all.narrow(1, n * heads * width, heads * width).unwrap());
        let ([q, k, v], [gq, gk, gv]) = (parts(&all), parts(&there));
        let want = tile_attention([&q, &k, &v], tiles, heads, DType::F32).unwrap();
        let what = format!("{tiles} tiles of {rows} rows, {heads} heads of {width}");
        assert_near(&tile_attention([&gq, &gk, &gv], tiles, heads, DType::F32).unwrap(), &want, 2e-5, &what);
        for (dtype, limit) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
            // Numbers that come in 16 bits are those that f32 is rounded to.
            let small = all.to_dtype(dtype).unwrap();
            let ([q, k, v], [gq, gk, gv]) =
                (parts(&small.to_dtype(DType::F32).unwrap()), parts(&small.to_device(&gpu).unwrap()));
            let want = tile_attention([&q, &k, &v], tiles, heads, DType::F32).unwrap();
            let got = tile_attention([&gq, &gk, &gv], tiles, heads, dtype).unwrap();
            assert_near(&got, &want, limit, &format!("{what} in {dtype:?}"));
            let [gq, gk, gv] = parts(&there);
            let got = tile_attention([&gq, &gk, &gv], tiles, heads, dtype).unwrap();
            assert_near(&got, &want, 2.0 * limit, &format!("{what} to {dtype:?}"));
        }
        let whole = [gq.force_contiguous().unwrap(), gk.force_contiguous().unwrap(), gv];
        assert_near(
            &tile_attention([&whole[0], &whole[1], &whole[2]], tiles, heads, DType::F32).unwrap(),
            &want,
            2e-5,
            &what,
        );
    }
    let wide = random(&[4, 256]).to_device(&gpu).unwrap();
    for out in [DType::F32, DType::F16] {
        assert!(tile_attention([&wide, &wide, &wide], 1, 1, out).is_err(), "heads of 256 were taken");
    }
}

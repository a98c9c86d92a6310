//! All layers of a decoder at once against its ops one by one on the CPU.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use vlm_catalog::quantization::BlockFormat;
use vlm_runtime::ops::{
    Batch, BlockBuilder, Decoder, KvCache, Linear, Parts, RmsNorm, RopeTable, Segment, Weight, nth_table, room_for,
    store_and_attend,
};

use crate::gpu::{assert_near, assert_not_finite, few, gpu, random};

const LAYERS: usize = 3;
const SLOTS: usize = 8;
const TOKENS: usize = 400;

static TABLES: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| (0..SLOTS).map(|slot| nth_table(slot, TOKENS)).collect());

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inner: usize,
    bias: bool,
}

/// Heads of every width, groups of one, a few and more than eight; outputs that are whole tiles for each block or not, and rows
/// longer than a block has room for.
const SIZES: [Sizes; 6] = [
    Sizes { width: 256, heads: 4, kv_heads: 4, head_dim: 64, inner: 704, bias: false },
    Sizes { width: 896, heads: 14, kv_heads: 2, head_dim: 64, inner: 4864, bias: true },
    Sizes { width: 768, heads: 8, kv_heads: 8, head_dim: 96, inner: 2048, bias: false },
    Sizes { width: 1024, heads: 20, kv_heads: 2, head_dim: 128, inner: 1000, bias: true },
    Sizes { width: 512, heads: 4, kv_heads: 1, head_dim: 128, inner: 18_944, bias: true },
    Sizes { width: 512, heads: 4, kv_heads: 2, head_dim: 128, inner: 1024, bias: true },
];

struct Layer {
    norms: [RmsNorm; 2],
    qkv: Linear,
    out: Linear,
    gate_up: Linear,
    down: Linear,
}

impl Layer {
    fn parts(&self) -> Parts<'_> {
        let Self { norms: [input_norm, post_norm], qkv, out, gate_up, down } = self;
        Parts { input_norm, qkv, out, post_norm, gate_up, down }
    }

    /// As `models::Language` does it.
    fn forward(&self, x: Tensor, n: usize, rope: &RopeTable, batch: &Batch, cache: &KvCache) -> Tensor {
        let qkv = self.qkv.forward(&self.norms[0].forward(&x).unwrap()).unwrap();
        let mixed = store_and_attend(&qkv, cache, n, rope, batch, DType::F32).unwrap();
        let x = self.out.forward_added(&mixed, x).unwrap();
        let gated = self.gate_up.forward_gated(&self.norms[1].forward(&x).unwrap()).unwrap();
        self.down.forward_added(&gated, x).unwrap()
    }
}

/// How weights are quantised, beside a cache in 16 bits.
#[derive(Clone, Copy, Debug)]
struct Held {
    dtype: DType,
    format: BlockFormat,
    /// How far results may be off, as a part of the largest.
    limit: f32,
}

/// What attention rounds otherwise may fall to the other side in 8 bits, which is one of 127 of the largest number that shares
/// its scale.
const HELD: [Held; 3] = [
    Held { dtype: DType::F16, format: BlockFormat::Q8_0, limit: 3e-2 },
    Held { dtype: DType::F16, format: BlockFormat::Q4_0, limit: 3e-2 },
    Held { dtype: DType::BF16, format: BlockFormat::Q4_K, limit: 1e-1 },
];

impl Held {
    /// Whether all rows of such sizes are whole blocks.
    fn fits(self, sizes: Sizes) -> bool {
        let rows = [sizes.width, sizes.heads * sizes.head_dim, sizes.inner];
        rows.iter().all(|row| self.format.fits(*row))
    }

    fn weight(self, numbers: &Tensor, device: &Device) -> Weight {
        let (outputs, row) = numbers.dims2().unwrap();
        let mut builder = BlockBuilder::new(self.format, outputs, row).unwrap();
        builder.append(numbers).unwrap();
        Weight::Blocks(builder.finish(device).unwrap())
    }
}

/// The same layers on each of the devices.
fn layers(sizes: Sizes, held: Held, devices: [&Device; 2]) -> [Vec<Layer>; 2] {
    let Sizes { width, heads, kv_heads, head_dim, inner, bias } = sizes;
    let qkv_width = (heads + 2 * kv_heads) * head_dim;
    let mut both = [Vec::new(), Vec::new()];
    for _ in 0..LAYERS {
        let matrix = |outer: usize, inner: usize| (random(&[outer, inner]) / (inner as f64).sqrt()).unwrap();
        let weights = [(qkv_width, width), (width, heads * head_dim), (2 * inner, width), (width, inner)];
        let weights = weights.map(|(outer, inner)| matrix(outer, inner));
        let norms = [0, 1].map(|_| ((random(&[width]) * 0.2).unwrap() + 1.0).unwrap());
        let bias = bias.then(|| random(&[qkv_width]));
        for (layers, device) in both.iter_mut().zip(devices) {
            let there = |tensor: &Tensor| tensor.to_device(device).unwrap();
            let linear =
                |n: usize, bias: Option<&Tensor>| Linear::new(held.weight(&weights[n], device), bias.map(there));
            layers.push(Layer {
                norms: [0, 1].map(|n| RmsNorm::new(there(&norms[n]), 1e-5)),
                qkv: linear(0, bias.as_ref()),
                out: linear(1, None),
                gate_up: linear(2, None),
                down: linear(3, None),
            });
        }
    }
    both
}

fn segment(slot: usize, start: usize, rows: usize) -> Segment<'static> {
    Segment { blocks: &TABLES[slot], start, rows, long: false }
}

/// A cache in which each slot has some tokens, and its table of angles.
fn cache(sizes: Sizes, dtype: DType, prompts: &[Tensor], device: &Device) -> (KvCache, RopeTable) {
    let Sizes { kv_heads, head_dim, .. } = sizes;
    let rope = RopeTable::new(TOKENS, head_dim, 10_000.0, device).unwrap();
    let cache = KvCache::new(LAYERS, room_for(SLOTS, TOKENS), kv_heads, head_dim, dtype, device).unwrap();
    for (slot, prompt) in prompts.iter().enumerate() {
        let (qkv, rows) = (prompt.to_device(device).unwrap(), prompt.dim(0).unwrap());
        for layer in 0..LAYERS {
            cache.store(layer, &qkv, &rope, &Batch::new(&[segment(slot, 0, rows)])).unwrap();
        }
    }
    (cache, rope)
}

/// Tokens that each slot has at first.
const CACHED: [usize; SLOTS] = [70, 1, 63, 64, 300, 127, 15, 33];

fn prompts(sizes: Sizes) -> Vec<Tensor> {
    let width = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim;
    CACHED.iter().map(|tokens| random(&[*tokens, width])).collect()
}

#[test]
fn layers_at_once_are_those_of_the_cpu_one_by_one() {
    let Some(gpu) = gpu() else { return };
    for sizes in few(SIZES) {
        for held in few(HELD).filter(|held| held.fits(sizes)) {
            let Held { dtype, limit, .. } = held;
            let [here, there] = layers(sizes, held, [&Device::Cpu, &gpu]);
            let prompts = prompts(sizes);
            let (wanted, rope) = cache(sizes, dtype, &prompts, &Device::Cpu);
            let (got, angles) = cache(sizes, dtype, &prompts, &gpu);
            let parts: Vec<_> = there.iter().map(Layer::parts).collect();
            let decoder = Decoder::new(&parts, &got).unwrap().expect("a decoder of such sizes");
            assert!(decoder.is_of(&parts, &got));
            for (step, rows) in [1, 2, 3, 5, 8, 8, 1].into_iter().enumerate() {
                let segments: Vec<_> = (0..rows).map(|slot| segment(slot, CACHED[slot] + step, 1)).collect();
                let x = random(&[rows, sizes.width]);
                let (batch, on_gpu) = (Batch::new(&segments), x.to_device(&gpu).unwrap());
                assert!(decoder.forward(&on_gpu, &batch, &angles, &got).unwrap());
                let mut want = x;
                for (n, layer) in here.iter().enumerate() {
                    want = layer.forward(want, n, &rope, &batch, &wanted);
                }
                let large = want.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let what = format!("{rows} rows of step {step} of {sizes:?}, {held:?}");
                assert_near(&on_gpu, &want, large * limit, &what);
            }
            for n in 0..LAYERS {
                let what = format!("cache of layer {n} of {sizes:?}, {held:?}");
                assert_near(got.layer(n), wanted.layer(n), 10.0 * limit, &what);
            }
        }
    }
}

#[test]
fn other_rows_and_layers_are_left_to_the_ops() {
    let Some(gpu) = gpu() else { return };
    let sizes = SIZES[0];
    let [_, there] = layers(sizes, HELD[0], [&Device::Cpu, &gpu]);
    let (cached, rope) = cache(sizes, DType::F16, &[], &gpu);
    let parts: Vec<_> = there.iter().map(Layer::parts).collect();
    let decoder = Decoder::new(&parts, &cached).unwrap().expect("a decoder");
    let takes = |segments: &[Segment<'_>]| {
        let rows = segments.iter().map(|segment| segment.rows).sum();
        let x = random(&[rows, sizes.width]).to_device(&gpu).unwrap();
        decoder.forward(&x, &Batch::new(segments), &rope, &cached).unwrap()
    };
    assert!(takes(&[segment(0, 0, 1), segment(1, 5, 1)]));
    assert!(!takes(&[segment(0, 0, 2)]), "rows that follow each other");
    assert!(!takes(&[segment(0, 3, 1), segment(1, 0, 3)]), "a prompt beside a token");
    let nine: Vec<_> = (0..9).map(|n| segment(n % SLOTS, n, 1)).collect();
    assert!(!takes(&nine), "more rows than columns");
    let (another, _) = cache(sizes, DType::F16, &[], &gpu);
    assert!(!decoder.is_of(&parts, &another), "another cache");
    let (other, _) = cache(sizes, DType::F32, &[], &gpu);
    assert!(Decoder::new(&parts, &other).unwrap().is_none(), "a cache of another format");
    let dense = random(&[sizes.width, 256]).to_device(&gpu).unwrap().to_dtype(DType::F16).unwrap();
    let dense = Linear::new(Weight::Dense(dense), None);
    let mixed: Vec<_> = parts.iter().map(|parts| Parts { out: &dense, ..*parts }).collect();
    assert!(Decoder::new(&mixed, &cached).unwrap().is_none(), "weights of two kinds");
    let out_of_reach = decoder.forward(
        &random(&[1, sizes.width]).to_device(&gpu).unwrap(),
        &Batch::new(&[segment(0, TOKENS + 100, 1)]),
        &rope,
        &cached,
    );
    assert!(out_of_reach.is_err(), "a position that has no angles");
}

#[test]
fn numbers_that_are_none_stay_in_their_row() {
    let Some(gpu) = gpu() else { return };
    let sizes = SIZES[0];
    let [_, there] = layers(sizes, HELD[0], [&Device::Cpu, &gpu]);
    let (cached, rope) = cache(sizes, DType::F16, &prompts(sizes), &gpu);
    let parts: Vec<_> = there.iter().map(Layer::parts).collect();
    let decoder = Decoder::new(&parts, &cached).unwrap().expect("a decoder");
    let mut numbers: Vec<f32> = random(&[3, sizes.width]).flatten_all().unwrap().to_vec1().unwrap();
    numbers[sizes.width + 7] = f32::NAN;
    let x = Tensor::from_vec(numbers, (3, sizes.width), &gpu).unwrap();
    let segments: Vec<_> = (0..3).map(|slot| segment(slot, CACHED[slot], 1)).collect();
    assert!(decoder.forward(&x, &Batch::new(&segments), &rope, &cached).unwrap());
    assert_not_finite(&x.narrow(0, 1, 1).unwrap(), "the row with a number that is none");
    for row in [0, 2] {
        let others: Vec<f32> = x.narrow(0, row, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(others.iter().all(|value| value.is_finite()), "row {row}");
    }
}

//! All layers of a decoder for a few single rows, in one kernel (`kernels/decoder.cuh`): what the ops give one after another,
//! which is what any other rows, weights or device get (`models/language.rs`). All weights are quantised alike, and the cache has
//! 16 bits.

mod memory;

use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, CudaStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use half::{bf16, f16};
use vlm_catalog::quantization::BlockFormat;

use self::memory::{GROUPS, Memory};
use super::attention::{numbers_of_parts, takes_products};
use super::batch::DeviceRows;
use super::cuda::{self, DECODER_Q4_0, DECODER_Q4_K, DECODER_Q8_0, Format, Kernel, Limits, launch};
use super::kv_cache::{KvShape, KvStrides};
use super::linear::ring::THREADS;
use super::{Batch, KvCache, KvFormat, Linear, RmsNorm, RopeTable, Weight};

/// Places of what one layer is computed with.
const PLACES: usize = 8;

/// What one layer of a decoder is computed with.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// Before attention.
    pub input_norm: &'a RmsNorm,
    /// Queries, keys and values.
    pub qkv: &'a Linear,
    /// Behind attention, added to the stream.
    pub out: &'a Linear,
    /// Behind that.
    pub post_norm: &'a RmsNorm,
    /// Gates, then what they are for.
    pub gate_up: &'a Linear,
    /// Back to the stream.
    pub down: &'a Linear,
}

/// The layers of a decoder with a cache. Both must be there as long as anything is computed with it.
pub struct Decoder {
    /// Of each layer: where its norms, weights, bias and cache are, as the kernel has them.
    places: Vec<[u64; PLACES]>,
    on_gpu: CudaSlice<u64>,
    /// Blocks that have come together in a step.
    come: CudaSlice<u32>,
    /// That of the cache.
    dtype: DType,
    /// Of the weights.
    format: BlockFormat,
    sizes: Sizes,
    eps: f32,
    device: CudaDevice,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Sizes {
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inner: usize,
}

impl Sizes {
    fn mixed(&self) -> usize {
        self.heads * self.head_dim
    }

    fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Of one layer, if its parts have those that belong together.
    fn of(parts: &Parts<'_>, shape: KvShape) -> Result<Option<Self>> {
        let KvShape { kv_heads, head_dim, .. } = shape;
        let (width, mixed) = (parts.qkv.inputs()?, parts.out.inputs()?);
        let sizes = Self { width, heads: mixed / head_dim, kv_heads, head_dim, inner: parts.down.inputs()? };
        let outputs = [&parts.qkv, &parts.out, &parts.gate_up, &parts.down].map(|linear| linear.outputs());
        let [qkv, out, gate_up, down] = outputs;
        let fits = mixed == sizes.mixed()
            && sizes.heads.is_multiple_of(kv_heads)
            && [qkv?, out?, gate_up?, down?] == [sizes.qkv(), width, 2 * sizes.inner, width]
            && parts.gate_up.inputs()? == width;
        Ok(fits.then_some(sizes))
    }
}

impl Decoder {
    /// Layers over `cache`, if the kernel takes such.
    pub fn new(layers: &[Parts<'_>], cache: &KvCache) -> Result<Option<Self>> {
        let candle_core::Device::Cuda(device) = cache.device() else { return Ok(None) };
        let Some(first) = layers.first() else { return Ok(None) };
        let (KvFormat::Numbers(dtype), shape) = (cache.format(), cache.shape()?) else { return Ok(None) };
        if dtype == DType::F32 || !takes_products(shape) {
            return Ok(None);
        }
        let Weight::Blocks(blocks) = first.qkv.weight() else { return Ok(None) };
        let (format, eps) = (blocks.format(), first.input_norm.eps());
        let Some(sizes) = Sizes::of(first, shape)? else { return Ok(None) };
        let Some(places) = places(layers, cache, (dtype, format)) else { return Ok(None) };
        for parts in layers {
            let norms = [parts.input_norm, parts.post_norm];
            if Sizes::of(parts, shape)? != Some(sizes) || norms.iter().any(|norm| norm.eps().to_bits() != eps.to_bits())
            {
                return Ok(None);
            }
        }
        let (on_gpu, come) = (device.clone_htod(&places.concat())?, device.alloc_zeros::<u32>(1)?);
        Ok(Some(Self { places, on_gpu, come, dtype, format, sizes, eps, device: device.clone() }))
    }

    /// Whether it is of these layers and this cache.
    pub fn is_of(&self, layers: &[Parts<'_>], cache: &KvCache) -> bool {
        places(layers, cache, (self.dtype, self.format)).as_ref() == Some(&self.places)
    }

    /// Runs `x`, `[rows, width]` in f32, through all layers, where it is, and extends the caches of the rows' sequences;
    /// says whether it does, which is for a few rows that are all single ones of their sequences.
    pub fn forward(&self, x: &Tensor, batch: &Batch, rope: &RopeTable, cache: &KvCache) -> Result<bool> {
        let rows = x.dim(0)?;
        let Some(memory) = Memory::of(&self.sizes, self.format, rows, Limits::of(&self.device)?) else {
            return Ok(false);
        };
        rope.check(batch)?;
        let shape = cache.shape()?;
        shape.check(batch)?;
        let on_gpu = batch.on_gpu(rope, &self.device)?;
        if on_gpu.runs > 0 || on_gpu.singles != rows {
            return Ok(false);
        }
        x.inplace_op1(&Step { decoder: self, rows: &on_gpu, rope, shape, memory })?;
        Ok(true)
    }
}

/// Where everything is, if all of it is what the kernel takes.
fn places(layers: &[Parts<'_>], cache: &KvCache, (dtype, format): (DType, BlockFormat)) -> Option<Vec<[u64; PLACES]>> {
    let mut places = Vec::with_capacity(layers.len());
    for (n, parts) in layers.iter().enumerate() {
        let linears = [parts.qkv, parts.out, parts.gate_up, parts.down];
        if linears[1..].iter().any(|linear| linear.bias().is_some()) {
            return None;
        }
        let [Some(qkv), Some(out), Some(gate_up), Some(down)] = linears.map(|linear| place_of(linear.weight(), format))
        else {
            return None;
        };
        let norms = [parts.input_norm, parts.post_norm].map(|norm| place(norm.weight(), DType::F32));
        let ([Some(input), Some(post)], Some(cache)) = (norms, place(cache.layer(n), dtype)) else { return None };
        let bias = parts.qkv.bias().map(|bias| place(bias, DType::F32));
        let bias = match bias {
            None => 0,
            Some(Some(bias)) => bias,
            Some(None) => return None,
        };
        places.push([input, qkv, bias, cache, out, post, gate_up, down]);
    }
    Some(places)
}

/// Where weights are, if they are such.
fn place_of(weight: &Weight, format: BlockFormat) -> Option<u64> {
    match weight {
        Weight::Blocks(blocks) if format == blocks.format() => blocks.place_on_gpu(),
        _ => None,
    }
}

/// Where the numbers of a tensor are that begin at a multiple of 16 bytes, and whose rows do, in `dtype` on a GPU.
fn place(tensor: &Tensor, dtype: DType) -> Option<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return None };
    let bytes = dtype.size_in_bytes();
    let whole = |numbers: usize| (numbers * bytes).is_multiple_of(16);
    let (first, row) = (layout.start_offset(), layout.dims().last().copied().unwrap_or_default());
    if tensor.dtype() != dtype || !layout.is_contiguous() || !whole(first) || !whole(row) {
        return None;
    }
    let place = match dtype {
        DType::F16 => of::<f16>(storage),
        DType::BF16 => of::<bf16>(storage),
        _ => of::<f32>(storage),
    };
    place.map(|place| place + (first * bytes) as u64)
}

fn of<T: Format>(storage: &CudaStorage) -> Option<u64> {
    let stream = storage.device.cuda_stream();
    storage.as_cuda_slice::<T>().ok().map(|numbers| numbers.device_ptr(&stream).0)
}

/// One step.
struct Step<'a> {
    decoder: &'a Decoder,
    rows: &'a DeviceRows,
    rope: &'a RopeTable,
    shape: KvShape,
    memory: Memory,
}

impl InplaceOp1 for Step<'_> {
    fn name(&self) -> &'static str {
        "decoder"
    }

    fn cpu_fwd(&self, _: &mut candle_core::CpuStorage, _: &Layout) -> Result<()> {
        bail!("the rows and the layers are not on one GPU")
    }

    fn cuda_fwd(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let (Decoder { sizes, device, .. }, Memory { phases, bytes, processors, .. }) = (self.decoder, self.memory);
        let (rows, width) = layout.shape().dims2()?;
        if width != sizes.width {
            bail!("a decoder of rows of {} numbers cannot take rows of {width}", sizes.width)
        }
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("expected whole rows, got {layout:?}") };
        let stream = x.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let qkv = cuda::room::<f32>(device, rows * sizes.qkv())?;
        let parts = cuda::room::<f32>(device, numbers_of_parts(GROUPS * processors, sizes.head_dim))?;
        let (mixed, gated) =
            (cuda::room::<f32>(device, rows * sizes.mixed())?, cuda::room::<f32>(device, rows * sizes.inner)?);
        let (module, prefix) = match self.decoder.format {
            BlockFormat::Q8_0 => (&DECODER_Q8_0, "decoder_q8_0"),
            BlockFormat::Q4_0 => (&DECODER_Q4_0, "decoder_q4_0"),
            BlockFormat::Q4_K => (&DECODER_Q4_K, "decoder_q4_k"),
        };
        let name = format!("{prefix}_{}_{}", self.decoder.dtype.as_str(), sizes.head_dim);
        let kernel = Kernel::together(device, module, &name)?.with_shared(bytes)?;
        let config = cuda::blocks([processors, 1, 1], THREADS, bytes / size_of::<f32>())?;
        let KvStrides { block, value, head, token, block_tokens } = self.shape.strides();
        let count = |number: usize| number as u32;
        let [phase_width, phase_mixed, phase_inner] = phases.map(count);
        let [rows_at, stages_at, stages] = [self.memory.rows_at, self.memory.stages_at, self.memory.stages].map(count);
        let (layers, count_of_rows) = (count(self.decoder.places.len()), count(rows));
        let [width, heads, kv_heads, inner] = [width, sizes.heads, sizes.kv_heads, sizes.inner].map(count);
        let (tables, which_rows, singles) = (self.rows.tables(), self.rows.rows(), self.rows.singles());
        let (storage, angles) = self.rope.tensor().storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("the rotary table is not on the GPU") };
        let angles = cuda::slice::<f32>(storage, angles)?;
        launch!(
            kernel,
            config,
            &self.decoder.on_gpu,
            &layers,
            &count_of_rows,
            &width,
            &heads,
            &kv_heads,
            &inner,
            &phase_width,
            &phase_mixed,
            &phase_inner,
            &rows_at,
            &stages_at,
            &stages,
            &self.decoder.eps,
            &block,
            &value,
            &head,
            &token,
            &block_tokens,
            &tables,
            &which_rows,
            &singles,
            &angles,
            &stream,
            &qkv,
            &parts,
            &mixed,
            &gated,
            &self.decoder.come
        )
    }
}

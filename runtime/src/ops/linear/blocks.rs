//! Weights in the blocks of GGUF, made by candle's quantisers, a few rows at a time.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use vlm_catalog::quantization::BlockFormat;

use super::kernels::{Q4K_GROUPS, scales_and_mins};
#[cfg(feature = "cuda")]
use super::on_gpu::Packed;
use crate::ops::cpu;
use crate::ops::element::widen_finite_f16;

/// Numbers that are widened and quantised at a time.
const QUANTISED: usize = 1 << 18;

/// Quantised weights `[rows, row length]`.
#[derive(Clone, Debug)]
pub struct Blocks {
    held: Held,
    format: BlockFormat,
    rows: usize,
    row_length: usize,
}

/// Where they are.
#[derive(Clone, Debug)]
enum Held {
    /// In main memory: the rows one after another, each a sequence of blocks.
    Here(Arc<Vec<u8>>),
    #[cfg(feature = "cuda")]
    OnGpu(Arc<Packed>),
}

impl Blocks {
    /// Those of `bytes`, `dims` numbers in `format`, in the memory of `device`.
    pub(super) fn of(
        bytes: Vec<u8>,
        format: BlockFormat,
        (rows, row_length): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let held = match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                Held::OnGpu(Arc::new(Packed::of(&device.clone_htod(&bytes)?, format, (rows, row_length), device)?))
            }
            Device::Cpu => Held::Here(Arc::new(bytes)),
            _ => bail!("there are no quantised weights on {device:?}"),
        };
        Ok(Self { held, format, rows, row_length })
    }

    /// As [`Self::of`], of weights that are on a GPU already.
    #[cfg(feature = "cuda")]
    pub(super) fn on_gpu(packed: Packed, format: BlockFormat, (rows, row_length): (usize, usize)) -> Self {
        Self { held: Held::OnGpu(Arc::new(packed)), format, rows, row_length }
    }

    /// The weights on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) fn packed(&self) -> Result<&Packed> {
        match &self.held {
            Held::OnGpu(packed) => Ok(packed),
            Held::Here(_) => bail!("the rows and the weights are not on one GPU"),
        }
    }

    /// Where the weights are on a GPU, if they are there.
    #[cfg(feature = "cuda")]
    pub fn place_on_gpu(&self) -> Option<u64> {
        self.packed().ok().map(Packed::address)
    }

    /// Rows, and the length of each.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.row_length)
    }

    /// Their format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        self.rows * self.row_bytes()
    }

    pub(super) fn row_bytes(&self) -> usize {
        row_bytes(self.format, self.row_length)
    }

    /// The rows one after another, each a sequence of blocks.
    ///
    /// # Errors
    /// Those of a GPU that has them.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.held {
            Held::Here(bytes) => Ok(Cow::Borrowed(bytes)),
            #[cfg(feature = "cuda")]
            Held::OnGpu(packed) => packed.blocks().map(Cow::Owned),
        }
    }

    /// Writes whole rows from `first` on to `out` in f32.
    pub(super) fn widen(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (bytes, row_bytes) = (self.bytes()?, self.row_bytes());
        let work = 4 * out.len();
        cpu::for_each_chunk(out, self.row_length, work, |row, out| {
            let bytes = &bytes[(first + row) * row_bytes..][..row_bytes];
            cpu::vectorised(Widen { format: self.format, bytes, out });
        });
        Ok(())
    }
}

pub(super) fn row_bytes(format: BlockFormat, row_length: usize) -> usize {
    row_length / format.block_len() * format.block_bytes()
}

pub(super) fn dtype(format: BlockFormat) -> GgmlDType {
    match format {
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_K => GgmlDType::Q4K,
    }
}

/// Makes [`Blocks`] from tensors whose rows follow each other. Holds no more of them than a few rows.
pub struct BlockBuilder {
    format: BlockFormat,
    row_length: usize,
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// For `rows` rows of `row_length` numbers.
    ///
    /// # Errors
    /// Rows that are no whole blocks.
    pub fn new(format: BlockFormat, rows: usize, row_length: usize) -> Result<Self> {
        if !format.fits(row_length) || row_length == 0 {
            bail!("rows of {row_length} numbers are no whole blocks of {format}, which are of {}", format.block_len())
        }
        Ok(Self { format, row_length, bytes: Vec::with_capacity(rows * row_bytes(format, row_length)) })
    }

    /// Quantises `rows`, `[rows, row length]` in f32, f16 or bf16.
    pub fn append(&mut self, rows: &Tensor) -> Result<()> {
        let (count, row_length) = rows.dims2()?;
        if row_length != self.row_length {
            bail!("rows of {row_length} numbers do not follow rows of {}", self.row_length)
        }
        let row_bytes = row_bytes(self.format, row_length);
        let at_a_time = (QUANTISED / row_length).max(1);
        let before = self.bytes.len();
        self.bytes.resize(before + count * row_bytes, 0);
        let parts = self.bytes[before..].par_chunks_mut(at_a_time * row_bytes).enumerate();
        parts.try_for_each(|(part, bytes)| {
            let some = rows.narrow(0, part * at_a_time, bytes.len() / row_bytes)?;
            // A view of a tensor that is f32 already would be quantised from the tensor's first row on.
            let some = if some.dtype() == DType::F32 { some.force_contiguous()? } else { some.to_dtype(DType::F32)? };
            bytes.copy_from_slice(&QTensor::quantize(&some, dtype(self.format))?.data()?);
            Ok(())
        })
    }

    /// The blocks of all rows in the memory of `device`.
    pub fn finish(self, device: &Device) -> Result<Blocks> {
        let Self { format, row_length, bytes } = self;
        let rows = bytes.len() / row_bytes(format, row_length);
        Blocks::of(bytes, format, (rows, row_length), device)
    }
}

/// One row in f32.
struct Widen<'a> {
    format: BlockFormat,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        match self.format {
            BlockFormat::Q8_0 => widen_q8_0(self.bytes, self.out),
            BlockFormat::Q4_0 => widen_q4_0(self.bytes, self.out),
            BlockFormat::Q4_K => widen_q4_k(self.bytes, self.out),
        }
    }
}

#[inline(always)]
fn widen_q8_0(bytes: &[u8], out: &mut [f32]) {
    let (blocks, _) = bytes.as_chunks::<{ BlockFormat::Q8_0.block_bytes() }>();
    let (outs, _) = out.as_chunks_mut::<{ BlockFormat::Q8_0.block_len() }>();
    for (block, out) in blocks.iter().zip(outs) {
        let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
        for (out, number) in out.iter_mut().zip(&block[2..]) {
            *out = f32::from(number.cast_signed()) * scale;
        }
    }
}

#[inline(always)]
fn widen_q4_0(bytes: &[u8], out: &mut [f32]) {
    let (blocks, _) = bytes.as_chunks::<{ BlockFormat::Q4_0.block_bytes() }>();
    let (outs, _) = out.as_chunks_mut::<{ BlockFormat::Q4_0.block_len() }>();
    for (block, out) in blocks.iter().zip(outs) {
        let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
        let (low, high) = out.split_at_mut(16);
        for ((low, high), two) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = (f32::from(two & 15) - 8.0) * scale;
            *high = (f32::from(two >> 4) - 8.0) * scale;
        }
    }
}

#[inline(always)]
fn widen_q4_k(bytes: &[u8], out: &mut [f32]) {
    let (blocks, _) = bytes.as_chunks::<{ BlockFormat::Q4_K.block_bytes() }>();
    let (outs, _) = out.as_chunks_mut::<{ BlockFormat::Q4_K.block_len() }>();
    for (block, out) in blocks.iter().zip(outs) {
        let scale = widen_finite_f16(u16::from_le_bytes([block[0], block[1]]));
        let min_scale = widen_finite_f16(u16::from_le_bytes([block[2], block[3]]));
        let (scales, mins) = scales_and_mins(block);
        for (pair, (twos, out)) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
            let (low, high) = out.split_at_mut(32);
            for (group, out, shift) in [(2 * pair, low, 0), (2 * pair + 1, high, 4)] {
                let (scale, min) = (scale * f32::from(scales[group]), min_scale * f32::from(mins[group]));
                for (out, two) in out.iter_mut().zip(twos) {
                    *out = scale * f32::from(two >> shift & 15) - min;
                }
            }
        }
    }
    debug_assert_eq!(out.len() % (32 * Q4K_GROUPS), 0);
}

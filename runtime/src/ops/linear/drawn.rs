//! Blocks that nobody quantised, for measurements of speed and memory: valid blocks of random numbers, made where they
//! will be computed with. All of a format have the same scales.

#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{Device, Result, bail};
use half::f16;
use rayon::prelude::*;
use vlm_catalog::quantization::BlockFormat;

use super::blocks::{Blocks, row_bytes};
#[cfg(feature = "cuda")]
use super::on_gpu::Packed;
#[cfg(feature = "cuda")]
use crate::ops::cuda::{self, DRAWN, Kernel, launch};

/// Words of 16 bits that begin the longest head of a block.
#[cfg(any(test, feature = "cuda"))]
const LONGEST_HEAD: usize = 8;
/// Words that one thread of a processor draws at a time.
const PART: usize = 1 << 16;
/// Scale of all groups of a block of Q4_K, and of their minima, in units of the block's.
const GROUP_SCALE: u8 = 33;
/// Standard deviations of whole numbers that are all as likely: of 8 bits, and of 4.
const SPREAD_8: f32 = 73.9;
const SPREAD_4: f32 = 4.61;

/// How a block of a format is drawn, in words of 16 bits.
struct Form {
    /// Words of a block.
    words: usize,
    /// The first of them: scales. All others are random.
    head: Vec<u16>,
}

impl Form {
    /// Blocks of numbers around zero with the standard deviation `spread`.
    fn of(format: BlockFormat, spread: f32) -> Self {
        let bits = |scale: f32| f16::from_f32(scale).to_bits();
        let head = match format {
            BlockFormat::Q8_0 => vec![bits(spread / SPREAD_8)],
            BlockFormat::Q4_0 => vec![bits(spread / SPREAD_4)],
            BlockFormat::Q4_K => {
                let scale = spread / SPREAD_4 / f32::from(GROUP_SCALE);
                // Six bits of each scale and each minimum: those of the last four groups share bytes with their upper
                // two in the bytes of the first four. The minimum is the middle of the 16 numbers.
                let [first, last] = [GROUP_SCALE & 63 | GROUP_SCALE >> 4 << 6, GROUP_SCALE & 15 | GROUP_SCALE << 4];
                let [first, last] = [first, last].map(|byte| u16::from_le_bytes([byte, byte]));
                vec![bits(scale), bits(scale * 7.5), first, first, first, first, last, last]
            }
        };
        Self { words: format.block_bytes() / 2, head }
    }

    /// Word `n` of all blocks.
    fn word(&self, n: usize, seed: u64) -> u16 {
        match self.head.get(n % self.words) {
            Some(word) => *word,
            None => random(seed, n as u64),
        }
    }
}

/// The upper 16 bits of the `n`-th number of `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators).
fn random(seed: u64, n: u64) -> u16 {
    let z = seed.wrapping_add((n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 48) as u16
}

impl Blocks {
    /// `rows` rows of `row_length` numbers around zero with the standard deviation `spread`, drawn in the memory of
    /// `device`: the same ones on every device, for one `seed`.
    ///
    /// # Errors
    /// Rows that are no whole blocks, and what the device has no room for.
    pub fn drawn(
        format: BlockFormat,
        (rows, row_length): (usize, usize),
        spread: f32,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        if !format.fits(row_length) || row_length == 0 {
            bail!("rows of {row_length} numbers are no whole blocks of {format}, which are of {}", format.block_len())
        }
        let (form, count) = (Form::of(format, spread), rows * row_bytes(format, row_length) / 2);
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            let drawn = on_gpu(&form, count, seed, device)?;
            let packed = Packed::of(&drawn, format, (rows, row_length), device)?;
            return Ok(Self::on_gpu(packed, format, (rows, row_length)));
        }
        let mut bytes = vec![0; 2 * count];
        bytes.par_chunks_mut(2 * PART).enumerate().for_each(|(part, bytes)| {
            for (n, word) in bytes.chunks_exact_mut(2).enumerate() {
                word.copy_from_slice(&form.word(part * PART + n, seed).to_le_bytes());
            }
        });
        Self::of(bytes, format, (rows, row_length), device)
    }
}

/// `count` words of blocks.
#[cfg(feature = "cuda")]
fn on_gpu(form: &Form, count: usize, seed: u64, device: &candle_core::CudaDevice) -> Result<CudaSlice<u8>> {
    let mut head = [0u64; LONGEST_HEAD / 4];
    for (n, word) in form.head.iter().enumerate() {
        head[n / 4] |= u64::from(*word) << (16 * (n % 4));
    }
    let [first, second] = head;
    let (words, heads) = (form.words as u32, form.head.len() as u32);
    let blocks = cuda::room::<u8>(device, 2 * count)?;
    let kernel = Kernel::of(device, &DRAWN, "draw_blocks")?;
    launch!(kernel, cuda::each(count)?, &blocks, &words, &first, &second, &heads, &seed, &count)?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{QStorage, QTensor};

    use super::super::blocks::dtype;
    use super::*;

    #[test]
    fn drawn_blocks_are_numbers_around_zero_of_the_wanted_spread() {
        for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4_K] {
            let (rows, row_length) = (130, 768);
            let drawn = |seed| Blocks::drawn(format, (rows, row_length), 0.02, seed, &Device::Cpu).unwrap();
            let blocks = drawn(1);
            assert_eq!((blocks.dims(), blocks.byte_len()), ((rows, row_length), blocks.bytes().unwrap().len()));
            let mut values = vec![0f32; rows * row_length];
            blocks.widen(0, &mut values).unwrap();
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let spread = (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt();
            assert!(mean.abs() < 3e-3 && (spread - 0.02).abs() < 4e-4, "{format}: {mean} {spread}");
            // candle reads the same numbers.
            let storage = QStorage::from_data(blocks.bytes().unwrap(), &Device::Cpu, dtype(format)).unwrap();
            let theirs = QTensor::new(storage, (rows, row_length)).unwrap().dequantize(&Device::Cpu).unwrap();
            let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
            assert!(theirs == values, "{format}");
            assert!(
                drawn(1).bytes().unwrap() == blocks.bytes().unwrap()
                    && drawn(2).bytes().unwrap() != blocks.bytes().unwrap()
            );
            assert!(Form::of(format, 0.02).head.len() <= LONGEST_HEAD);
            assert!(Blocks::drawn(format, (1, 112), 0.02, 1, &Device::Cpu).is_err());
        }
    }

    #[test]
    fn no_two_parts_of_drawn_blocks_are_alike() {
        let blocks = Blocks::drawn(BlockFormat::Q8_0, (64, 4096), 0.02, 7, &Device::Cpu).unwrap();
        let bytes = blocks.bytes().unwrap();
        let rows: std::collections::HashSet<_> = bytes.chunks(34).collect();
        assert_eq!(rows.len(), 64 * 4096 / 32);
    }
}

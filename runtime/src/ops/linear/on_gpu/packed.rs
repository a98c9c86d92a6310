//! Quantised weights in the memory of a GPU, in the order in which tensor cores take them (`kernels/formats.cuh`).

use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, Result, bail};
use vlm_catalog::quantization::BlockFormat;

use crate::ops::cuda::{self, Kernel, PACK, launch};

/// Outputs that follow each other in chunks.
pub const OUTPUTS: usize = 8;

/// Numbers of each output in a chunk.
pub const fn width(format: BlockFormat) -> usize {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 => 128,
        BlockFormat::Q4_K => 256,
    }
}

/// What kernels call a format.
pub const fn name(format: BlockFormat) -> &'static str {
    match format {
        BlockFormat::Q8_0 => "q8_0",
        BlockFormat::Q4_0 => "q4_0",
        BlockFormat::Q4_K => "q4_k",
    }
}

/// The weights of one layer.
#[derive(Clone, Debug)]
pub struct Packed {
    bytes: CudaSlice<u8>,
    device: CudaDevice,
    format: BlockFormat,
    rows: usize,
    row_length: usize,
}

impl Packed {
    /// Those of `blocks`, `dims` numbers in `format`.
    pub fn of(
        blocks: &CudaSlice<u8>,
        format: BlockFormat,
        (rows, row_length): (usize, usize),
        device: &CudaDevice,
    ) -> Result<Self> {
        if !format.fits(row_length) || blocks.len() != rows * row_length / format.block_len() * format.block_bytes() {
            bail!("{} bytes are not {rows} x {row_length} numbers in {format}", blocks.len())
        }
        let width = width(format);
        let numbers = rows.next_multiple_of(OUTPUTS) * row_length.next_multiple_of(width);
        let bytes = device.alloc_zeros::<u8>(numbers / format.block_len() * format.block_bytes())?;
        let packed = Self { bytes, device: device.clone(), format, rows, row_length };
        packed.reorder(blocks, false)?;
        Ok(packed)
    }

    /// Where they are.
    pub fn place(&self) -> &CudaSlice<u8> {
        &self.bytes
    }

    /// That as an address.
    pub fn address(&self) -> u64 {
        self.bytes.device_ptr(&self.device.cuda_stream()).0
    }

    /// The blocks of the rows, one after another.
    pub fn blocks(&self) -> Result<Vec<u8>> {
        let count = self.rows * self.row_length / self.format.block_len() * self.format.block_bytes();
        let blocks = cuda::room::<u8>(&self.device, count)?;
        self.reorder(&blocks, true)?;
        self.device.clone_dtoh(&blocks)
    }

    fn reorder(&self, blocks: &CudaSlice<u8>, back: bool) -> Result<()> {
        let kernel = Kernel::of(&self.device, &PACK, &format!("pack_{}", name(self.format)))?;
        let (row, words, back) = (self.row_length as u32, blocks.len() / 2, u32::from(back));
        launch!(kernel, cuda::each(words)?, blocks, &self.bytes, &row, &words, &back)
    }
}

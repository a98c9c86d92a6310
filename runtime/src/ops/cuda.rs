//! What the CUDA halves of ops share: the project's kernels as the build made them, elements of tensors, results, and
//! the launch. Knows no op.

mod launching;
mod recording;

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::cublas::result::CublasError;
use candle_core::cuda::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView, DeviceRepr, DriverError, LaunchConfig};
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, bail};

use super::element::Element;
use crate::device::NO_MEMORY;

pub(crate) use launching::launch;
use launching::loaded;
pub use launching::{Kernel, Limits, bits};
pub use recording::{recording, room};

/// Threads of a block where each has one number.
pub const THREADS: usize = 256;

/// A number format of kernels, which call it what candle does.
pub trait Format: Element + CudaDType + DeviceRepr {
    /// What that is.
    fn name() -> &'static str {
        Self::DTYPE.as_str()
    }
}

impl<T: Element + CudaDType + DeviceRepr> Format for T {}

/// One file of kernels.
pub struct Module {
    name: &'static str,
    image: &'static [u8],
}

macro_rules! modules {
    ($($constant:ident = $name:literal),+ $(,)?) => {
        $(
            #[doc = concat!("`kernels/", $name, ".cu`.")]
            pub const $constant: Module = Module {
                name: $name,
                image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")),
            };
        )+

        /// All of them.
        const MODULES: &[&Module] = &[$(&$constant),+];
    };
}

modules! {
    ACTIVATION = "activation",
    ATTENTION = "attention",
    CHOOSE = "choose",
    DECODER_Q4_0 = "decoder_q4_0",
    DECODER_Q4_K = "decoder_q4_k",
    DECODER_Q8_0 = "decoder_q8_0",
    DRAWN = "drawn",
    FEW_QUANTISED = "few_quantised",
    FEW_ROWS = "few_rows",
    FINITE = "finite",
    GATHER = "gather",
    KV_CACHE = "kv_cache",
    LINEAR = "linear",
    NORM = "norm",
    PACK = "pack",
    PATCHES = "patches",
    READ = "read",
    RESIDUAL = "residual",
    STEM = "stem",
    TILE_ATTENTION = "tile_attention",
    WIDEN = "widen",
}

/// Loads every module, where steps would do so on their first use of each.
pub fn load_all(device: &CudaDevice) -> Result<()> {
    MODULES.iter().try_for_each(|module| loaded(device, module).map(drop))
}

/// One thread for each of `count` numbers.
pub fn each(count: usize) -> Result<LaunchConfig> {
    let blocks = u32::try_from(count.div_ceil(THREADS));
    let Ok(blocks) = blocks else { bail!("{count} numbers are more than one kernel takes") };
    Ok(LaunchConfig { grid_dim: (blocks.max(1), 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 })
}

/// `grid` blocks of `threads` threads, with `shared` numbers of f32 for each block.
pub fn blocks(grid: [usize; 3], threads: usize, shared: usize) -> Result<LaunchConfig> {
    let [x, y, z] = grid;
    // The limits of a grid.
    if x > i32::MAX as usize || y > 65_535 || z > 65_535 {
        bail!("a step of {x} x {y} x {z} blocks is more than one kernel takes")
    }
    let (grid_dim, block_dim) = ((x as u32, y as u32, z as u32), (threads as u32, 1, 1));
    Ok(LaunchConfig { grid_dim, block_dim, shared_mem_bytes: (shared * size_of::<f32>()) as u32 })
}

/// As many threads as a row of `width` numbers is worth: whole warps.
pub fn threads(width: usize) -> usize {
    width.next_multiple_of(32).clamp(32, 512)
}

/// The elements of a contiguous tensor.
pub fn slice<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("expected a contiguous tensor, got {layout:?}") };
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// The elements of `[…, width]` from the first on, rows any number of elements apart, and that number. The shape may
/// have more than two axes where the rows follow each other.
pub fn rows<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<(CudaView<'a, T>, usize)> {
    let Some(width) = layout.dims().last() else { bail!("expected rows, got a number") };
    if layout.is_contiguous() {
        return Ok((slice(storage, layout)?, *width));
    }
    match (layout.dims(), layout.stride()) {
        ([rows, width], [stride, 1]) if *rows > 0 && stride >= width => {
            let start = layout.start_offset();
            Ok((storage.as_cuda_slice::<T>()?.slice(start..start + (rows - 1) * stride + width), *stride))
        }
        _ => bail!("expected rows of numbers that follow each other, got {layout:?}"),
    }
}

/// A result as a storage.
pub fn storage<T: CudaDType>(slice: CudaSlice<T>, device: &CudaDevice) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(slice, device.clone())
}

/// A driver's error as candle's.
pub fn failed(error: DriverError) -> Error {
    Error::Cuda(Box::new(error))
}

/// Whether there was no memory for it.
pub fn no_memory(error: &Error) -> bool {
    error.to_string().contains(NO_MEMORY)
}

/// Does `work`, and once more where it had no memory: tensors that are gone leave theirs to later tensors, and what is no
/// tensor, such as a recorded step, gets none of that before it is the driver's again.
pub fn with_room<T>(device: &CudaDevice, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    match work() {
        Err(error) if no_memory(&error) => {
            give_back(device)?;
            work()
        }
        done => done,
    }
}

/// Gives the driver what no tensor holds any more, after all that is computed.
fn give_back(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    stream.synchronize().map_err(failed)?;
    #[expect(
        unsafe_code,
        reason = "the pool is the default one of an open GPU, and only what is free there is given back"
    )]
    let given = unsafe {
        device::get_default_mem_pool(stream.context().cu_device()).and_then(|pool| mem_pool::trim_to(pool, 0))
    };
    given.map_err(failed)
}

/// As [`failed`], of cuBLAS.
pub fn failed_blas(error: CublasError) -> Error {
    Error::Cuda(Box::new(error))
}

/// Most queries of a warp in `kernels/softmax.cuh`.
pub const QUERIES: usize = 8;
/// Keys of a tile there.
const KEYS: usize = 32;
/// Numbers of a head there.
const WIDEST_HEAD: usize = 128;

/// Refuses heads that are wider than the kernels take.
pub fn check_head(head_dim: usize) -> Result<()> {
    if head_dim > WIDEST_HEAD {
        bail!("heads of {head_dim} numbers are wider than the {WIDEST_HEAD} that a GPU is used for")
    }
    Ok(())
}

/// Numbers of shared memory for a tile of keys and `queries` queries.
pub fn tile_memory(queries: usize, head_dim: usize) -> Result<usize> {
    check_head(head_dim)?;
    Ok((KEYS + queries) * (head_dim.next_multiple_of(4) + 4))
}

/// Queries of a block in `kernels/flash.cuh`.
pub const FLASH_QUERIES: usize = 64;
/// Keys of a tile there, and threads of a block.
const FLASH_KEYS: usize = 64;
const FLASH_THREADS: usize = 128;

/// A launch of attention on tensor cores.
pub struct Flash {
    /// The width of a head that the kernel is made for.
    pub head: usize,
    /// Blocks and their memory.
    pub config: LaunchConfig,
}

impl Flash {
    /// `grid` blocks for heads of `head_dim` numbers.
    pub fn new(grid: [usize; 3], head_dim: usize) -> Result<Self> {
        check_head(head_dim)?;
        let head = if head_dim <= WIDEST_HEAD / 2 { WIDEST_HEAD / 2 } else { WIDEST_HEAD };
        // Keys and values in 16 bits: two numbers in the place of one.
        let shared = FLASH_KEYS * (head + 8);
        Ok(Self { head, config: blocks(grid, FLASH_THREADS, shared)? })
    }
}

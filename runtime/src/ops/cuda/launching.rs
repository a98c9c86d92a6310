//! Kernels, their arguments, and the launch.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
};
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, LaunchConfig,
};
use candle_core::cuda::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, Result};

use super::{Module, failed};

/// Modules that are loaded, by GPU and name. They live as long as the process, as the context of its GPU does.
static LOADED: Mutex<BTreeMap<(usize, &str), Arc<CudaModule>>> = Mutex::new(BTreeMap::new());

/// What a kernel that may start early was compiled for at least, ten times the compute capability.
const WAITS: i32 = 90;

/// Percent of the memory of a multiprocessor beside its registers that kernels want as shared memory: all of them as much as
/// there is. Between kernels that want different parts a GPU may wait for the first to end, and the next starts no earlier.
const SHARED_PERCENT: i32 = 100;

/// A module, which is loaded on its first use.
pub fn loaded(device: &CudaDevice, module: &Module) -> Result<Arc<CudaModule>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (context.ordinal(), module.name);
    if let Some(held) = loaded.get(&key) {
        return Ok(Arc::clone(held));
    }
    let fresh = context.load_module(Ptx::from_binary(module.image.to_vec())).map_err(failed)?;
    loaded.insert(key, Arc::clone(&fresh));
    Ok(fresh)
}

/// What a GPU has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes of shared memory that a block may have.
    pub shared: usize,
}

impl Limits {
    /// Those of `device`.
    pub fn of(device: &CudaDevice) -> Result<Self> {
        use CUdevice_attribute as Attribute;
        let stream = device.cuda_stream();
        let size = |attribute| {
            let value = stream.context().attribute(attribute).map_err(failed)?;
            usize::try_from(value).map_err(candle_core::Error::wrap)
        };
        Ok(Self {
            processors: size(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared: size(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        })
    }
}

/// A kernel and the stream of its device.
pub struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
    start: Start,
}

/// When the blocks of a kernel start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// After the kernel before it, as there is room.
    AfterLast,
    /// While the kernel before it still runs.
    Early,
    /// After it, all of them at the same time.
    Together,
}

impl Start {
    /// What the driver is told of it.
    fn attribute(self) -> Option<CUlaunchAttribute> {
        let (id, value) = match self {
            Self::AfterLast => return None,
            Self::Early => (
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            ),
            Self::Together => {
                (CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, CUlaunchAttributeValue { cooperative: 1 })
            }
        };
        Some(CUlaunchAttribute { id, pad: [0; 4], value })
    }
}

impl Kernel {
    /// The kernel `name` of `module`, which is loaded on its first use.
    pub fn of(device: &CudaDevice, module: &Module, name: &str) -> Result<Self> {
        let function = loaded(device, module)?.load_function(name).map_err(failed)?;
        let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        function.set_attribute(shared, SHARED_PERCENT).map_err(failed)?;
        Ok(Self { function, stream: device.cuda_stream(), start: Start::AfterLast })
    }

    /// As [`Self::of`], of a kernel that waits for those before it by itself (`kernels/early.cuh`): it starts while the one
    /// before it still runs. That needs code that was compiled for 9.0, where the waiting is: what a driver makes of PTX
    /// for 8.0 has none, whatever the GPU.
    pub fn early(device: &CudaDevice, module: &Module, name: &str) -> Result<Self> {
        let kernel = Self::of(device, module, name)?;
        let compiled = kernel.function.get_attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION);
        let start = if compiled.map_err(failed)? >= WAITS { Start::Early } else { Start::AfterLast };
        Ok(Self { start, ..kernel })
    }

    /// As [`Self::of`], of a kernel whose blocks wait for each other (`kernels/together.cuh`): no more of them than fit the
    /// GPU at the same time.
    pub fn together(device: &CudaDevice, module: &Module, name: &str) -> Result<Self> {
        Ok(Self { start: Start::Together, ..Self::of(device, module, name)? })
    }

    /// Lets its blocks have `bytes` of shared memory, which may be more than 48 KiB.
    pub fn with_shared(self, bytes: usize) -> Result<Self> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        self.function.set_attribute(attribute, i32::try_from(bytes).unwrap_or(i32::MAX)).map_err(failed)?;
        Ok(self)
    }

    /// Blocks of so many threads, with `bytes` of shared memory, that fit a GPU with those limits at the same time.
    pub fn at_the_same_time(&self, limits: Limits, threads: usize, bytes: usize) -> Result<usize> {
        let threads = u32::try_from(threads).map_err(candle_core::Error::wrap)?;
        let each = self.function.occupancy_max_active_blocks_per_multiprocessor(threads, bytes, None);
        Ok(each.map_err(failed)? as usize * limits.processors)
    }

    /// The stream on which it runs.
    pub fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// Launches it.
    ///
    /// # Safety
    /// The arguments are those of its definition, in order, and reach no further than the memory behind them.
    #[expect(unsafe_code, reason = "the caller answers for the arguments")]
    pub unsafe fn launch(&self, config: LaunchConfig, arguments: &[u64]) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(failed)?;
        // None is longer than eight bytes, and the shorter begin with the first.
        let mut places: Vec<*mut c_void> = arguments.iter().map(|bits| (&raw const *bits).cast_mut().cast()).collect();
        let mut attribute = self.start.attribute();
        let ((grid_x, grid_y, grid_z), (block_x, block_y, block_z)) = (config.grid_dim, config.block_dim);
        let launch = sys::CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: config.shared_mem_bytes,
            hStream: self.stream.cu_stream(),
            numAttrs: u32::from(attribute.is_some()),
            attrs: attribute.as_mut().map_or(null_mut(), |attribute| &raw mut *attribute),
        };
        let done = unsafe {
            sys::cuLaunchKernelEx(&raw const launch, self.function.cu_function(), places.as_mut_ptr(), null_mut())
        };
        done.result().map_err(failed)
    }
}

/// Something that a kernel is given: a number of up to eight bytes, or where memory is.
pub trait Argument {
    /// Its bytes, the first of them lowest.
    fn bits(&self, stream: &CudaStream) -> u64;
}

macro_rules! numbers {
    ($($number:ty: $bits:expr),+ $(,)?) => {
        $(impl Argument for $number {
            fn bits(&self, _: &CudaStream) -> u64 {
                $bits(*self)
            }
        })+
    };
}
numbers! {
    u32: u64::from,
    u64: u64::from,
    usize: |number| number as u64,
    f32: |number: f32| u64::from(number.to_bits()),
}

macro_rules! places {
    ($($place:ty),+ $(,)?) => {
        $(impl<T> Argument for $place {
            fn bits(&self, stream: &CudaStream) -> u64 {
                self.device_ptr(stream).0
            }
        })+
    };
}
places!(CudaSlice<T>, CudaView<'_, T>, CudaViewMut<'_, T>);

/// The bytes of an argument.
pub fn bits(argument: &impl Argument, stream: &CudaStream) -> u64 {
    argument.bits(stream)
}

/// Launches a kernel with references to its arguments in order, which must be those of its definition, and reach no
/// further than the tensors behind them.
macro_rules! launch {
    ($kernel:expr, $config:expr, $($argument:expr),+ $(,)?) => {{
        let kernel = &$kernel;
        let arguments = [$($crate::ops::cuda::bits($argument, kernel.stream())),+];
        #[expect(unsafe_code, reason = "the arguments are those of the kernel, within tensors that were checked")]
        let launched = unsafe { kernel.launch($config, &arguments) };
        launched
    }};
}
pub(crate) use launch;

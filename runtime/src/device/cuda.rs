//! A GPU as candle's device, after everything that it needs was found.

use candle_core::cuda::cudarc::driver::sys;
use candle_core::{CudaDevice, Device};

use super::{DeviceError, Taken, driver, libraries};

/// The first GPU. The order of the checks is that in which a person mends them.
///
/// # Errors
/// The first thing that is missing or too old.
#[expect(unsafe_code, reason = "everything on the device goes through its one stream")]
pub fn open() -> Result<Device, DeviceError> {
    let gpu = driver::first_gpu()?;
    libraries::open()?;
    let failed = |error: candle_core::Error| DeviceError::Failed(error.to_string());
    // A stream of its own: the engine's thread is not the one that loads.
    let device = CudaDevice::new_with_stream(0).map_err(failed)?;
    // Events would only order streams among each other.
    unsafe { device.disable_event_tracking() };
    keep_memory(&device)?;
    tracing::info!(name = gpu.name, capability = format_args!("{}.{}", gpu.major, gpu.minor), "computing on a GPU");
    Ok(Device::Cuda(device))
}

/// Bytes of its memory that nobody has taken.
///
/// # Errors
/// What the driver says.
pub fn free_bytes(device: &CudaDevice) -> Result<u64, DeviceError> {
    let (free, _) = device.cuda_stream().context().mem_get_info().map_err(|e| DeviceError::Failed(e.to_string()))?;
    Ok(free as u64)
}

/// What the driver calls it.
pub fn name(device: &CudaDevice) -> String {
    device.cuda_stream().context().name().unwrap_or_else(|_| "GPU".to_owned())
}

/// Lets the pool from which all memory of tensors comes keep what is free: a step takes as much as the one before, and
/// memory that is given back to the driver is slow to get again.
fn keep_memory(device: &CudaDevice) -> Result<(), DeviceError> {
    Pool::of(device)?.set(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// What of its memory is taken; the most at a time is that since the last call.
///
/// # Errors
/// What the driver says.
pub fn taken(device: &CudaDevice) -> Result<Taken, DeviceError> {
    let (free, all) = device.cuda_stream().context().mem_get_info().map_err(|e| DeviceError::Failed(e.to_string()))?;
    let pool = Pool::of(device)?;
    let held = pool.get(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used_bytes = pool.get(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    let most_bytes = pool.get(high)?;
    // Only zero may be set: it begins again with what is taken now.
    pool.set(high, 0)?;
    Ok(Taken { used_bytes, most_bytes, beside_bytes: ((all - free) as u64).saturating_sub(held) })
}

/// Says to a profiler that waits for it whether it is to look at what comes.
///
/// # Errors
/// What the driver says.
#[expect(unsafe_code, reason = "the calls take and give nothing")]
pub fn show(device: &CudaDevice, on: bool) -> Result<(), DeviceError> {
    device.cuda_stream().context().bind_to_thread().map_err(|e| DeviceError::Failed(e.to_string()))?;
    done(if on { unsafe { sys::cuProfilerStart() } } else { unsafe { sys::cuProfilerStop() } })
}

/// The pool from which all memory of tensors comes.
struct Pool(sys::CUmemoryPool);

#[expect(unsafe_code, reason = "the pool is the device's own, and all numbers are of 64 bits")]
impl Pool {
    fn of(device: &CudaDevice) -> Result<Self, DeviceError> {
        let (stream, mut pool) = (device.cuda_stream(), std::ptr::null_mut());
        done(unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device()) })?;
        Ok(Self(pool))
    }

    fn get(&self, attribute: sys::CUmemPool_attribute) -> Result<u64, DeviceError> {
        let mut number = 0u64;
        done(unsafe { sys::cuMemPoolGetAttribute(self.0, attribute, (&raw mut number).cast()) })?;
        Ok(number)
    }

    fn set(&self, attribute: sys::CUmemPool_attribute, mut number: u64) -> Result<(), DeviceError> {
        done(unsafe { sys::cuMemPoolSetAttribute(self.0, attribute, (&raw mut number).cast()) })
    }
}

fn done(code: sys::CUresult) -> Result<(), DeviceError> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(DeviceError::Failed(format!("the memory pool gives {error:?}"))),
    }
}

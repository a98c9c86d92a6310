//! A GPU as candle's device, after everything that it needs was found.

use candle_core::cuda::cudarc::driver::sys;
use candle_core::{CudaDevice, Device};

use super::{DeviceError, driver, libraries};

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
#[expect(unsafe_code, reason = "the pool is the device's own, and the number is of 64 bits")]
fn keep_memory(device: &CudaDevice) -> Result<(), DeviceError> {
    let (pool, mut most) = (pool(device)?, u64::MAX);
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    done(unsafe { sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut most).cast()) })
}

#[expect(unsafe_code, reason = "the device is there as long as its stream")]
fn pool(device: &CudaDevice) -> Result<sys::CUmemoryPool, DeviceError> {
    let (stream, mut pool) = (device.cuda_stream(), std::ptr::null_mut());
    done(unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device()) })?;
    Ok(pool)
}

fn done(code: sys::CUresult) -> Result<(), DeviceError> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(DeviceError::Failed(format!("the memory pool gives {error:?}"))),
    }
}

/// Most bytes of its pool, from which all memory of tensors comes, that were taken at a time since the last call.
///
/// # Errors
/// What the driver says.
#[expect(unsafe_code, reason = "the pool is the device's own, and both numbers are of 64 bits")]
pub fn peak_bytes(device: &CudaDevice) -> Result<u64, DeviceError> {
    let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    let (pool, mut bytes, mut none) = (pool(device)?, 0u64, 0u64);
    done(unsafe { sys::cuMemPoolGetAttribute(pool, high, (&raw mut bytes).cast()) })?;
    // Only zero may be set: it begins again with what is taken now.
    done(unsafe { sys::cuMemPoolSetAttribute(pool, high, (&raw mut none).cast()) })?;
    Ok(bytes)
}

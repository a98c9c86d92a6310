//! A GPU as candle's device, after everything that it needs was found.

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

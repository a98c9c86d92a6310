//! What the NVIDIA driver says of itself and of the first GPU, asked directly: the bindings that candle uses panic on a
//! driver that is missing or lacks a function.

use std::ffi::{CStr, c_char, c_int, c_uint};

use libloading::Library;

use super::DeviceError;
use super::libraries::open_first;

/// CUDA 13.0, as the driver counts.
const OLDEST_CUDA: c_int = 13_000;
/// The oldest generation with kernels.
const OLDEST_CAPABILITY: c_int = 8;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;
/// Where containers get the driver, besides where the system looks.
const FOLDERS: [&str; 3] = ["/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"];

/// The first GPU.
pub struct Gpu {
    /// What the driver calls it.
    pub name: String,
    /// Compute capability.
    pub major: c_int,
    /// Its second number.
    pub minor: c_int,
}

/// Finds driver and GPU.
///
/// # Errors
/// No driver or GPU, or one that is too old.
pub fn first_gpu() -> Result<Gpu, DeviceError> {
    let driver = Driver(open_first("libcuda.so.1", &FOLDERS).map_err(DeviceError::NoDriver)?);
    let version = driver.version()?;
    if version < OLDEST_CUDA {
        let cuda = format!("{}.{}", version / 1000, version % 1000 / 10);
        let driver = kernel_module().unwrap_or_else(|| "of unknown version".to_owned());
        return Err(DeviceError::DriverTooOld { driver, cuda });
    }
    driver.start()?;
    let gpu = driver.gpu()?;
    if gpu.major < OLDEST_CAPABILITY {
        return Err(DeviceError::Generation { name: gpu.name, major: gpu.major, minor: gpu.minor });
    }
    // It stays open for those who will ask for it by name.
    std::mem::forget(driver);
    Ok(gpu)
}

type Version = unsafe extern "C" fn(*mut c_int) -> c_int;
type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;

/// The opened `libcuda.so.1`.
struct Driver(Library);

impl Driver {
    /// Has `call` call the function `name`, whose type is the caller's to know: its error code.
    #[expect(unsafe_code, reason = "every caller names the type that the driver's documentation has")]
    fn call<F: Copy>(&self, name: &str, call: impl FnOnce(F) -> c_int) -> Result<c_int, DeviceError> {
        let function = unsafe { self.0.get::<F>(name.as_bytes()) };
        let function = function.map_err(|error| DeviceError::Failed(error.to_string()))?;
        Ok(call(*function))
    }

    #[expect(unsafe_code, reason = "it writes one number")]
    fn version(&self) -> Result<c_int, DeviceError> {
        let mut version = 0;
        let code = self.call::<Version>("cuDriverGetVersion", |get| unsafe { get(&raw mut version) })?;
        done("cuDriverGetVersion", code)?;
        Ok(version)
    }

    #[expect(unsafe_code, reason = "it takes no pointer")]
    fn start(&self) -> Result<(), DeviceError> {
        let code = self.call::<Init>("cuInit", |init| unsafe { init(0) })?;
        if code == NO_DEVICE {
            return Err(DeviceError::NoGpu(format!("cuInit gives {code}")));
        }
        done("cuInit", code)
    }

    #[expect(unsafe_code, reason = "the one writes a number, the other a text of up to the length that it gets")]
    fn gpu(&self) -> Result<Gpu, DeviceError> {
        let (mut device, mut name) = (0, [0u8; 128]);
        let code = self.call::<Get>("cuDeviceGet", |get| unsafe { get(&raw mut device, 0) })?;
        if code != 0 {
            return Err(DeviceError::NoGpu(format!("cuDeviceGet gives {code}")));
        }
        let (text, length) = (name.as_mut_ptr().cast(), c_int::try_from(name.len()).unwrap_or(c_int::MAX));
        let code = self.call::<GetName>("cuDeviceGetName", |get| unsafe { get(text, length, device) })?;
        done("cuDeviceGetName", code)?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
        let [major, minor] = CAPABILITY.map(|attribute| self.attribute(attribute, device));
        Ok(Gpu { name, major: major?, minor: minor? })
    }

    #[expect(unsafe_code, reason = "it writes one number")]
    fn attribute(&self, attribute: c_int, device: c_int) -> Result<c_int, DeviceError> {
        let mut value = 0;
        let get = |get: GetAttribute| unsafe { get(&raw mut value, attribute, device) };
        let code = self.call("cuDeviceGetAttribute", get)?;
        done("cuDeviceGetAttribute", code)?;
        Ok(value)
    }
}

fn done(function: &str, code: c_int) -> Result<(), DeviceError> {
    if code == 0 { Ok(()) } else { Err(DeviceError::Failed(format!("{function} gives error {code}"))) }
}

/// Version of the kernel module, which is the driver's.
fn kernel_module() -> Option<String> {
    version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The first word that is numbers and dots.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.split_whitespace().find(is_version).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_named_as_the_kernel_module_is() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (builder)\n\
                    GCC version:  gcc version 12.3.0";
        assert_eq!(version_in(text).as_deref(), Some("550.54.15"));
        assert_eq!(version_in("nothing"), None);
    }
}

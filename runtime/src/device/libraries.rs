//! The shared libraries of CUDA, opened by hand and kept open: the bindings that candle uses find them by name
//! afterwards, and panic on one that is missing.

use std::error::Error;

use libloading::Library;
use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_NOW};

use super::DeviceError;

/// In the order in which they need each other.
const LIBRARIES: [&str; 3] = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"];
/// Where CUDA is installed, besides where the system looks.
const FOLDERS: [&str; 3] =
    ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu"];

/// Opens all of them.
///
/// # Errors
/// The first that cannot be opened.
pub fn open() -> Result<(), DeviceError> {
    for library in LIBRARIES {
        let opened = open_first(library, &FOLDERS).map_err(|reason| DeviceError::Library { library, reason })?;
        std::mem::forget(opened);
    }
    Ok(())
}

/// Opens `name` where the system finds it, or else in one of `folders`.
///
/// # Errors
/// What the system said at first.
#[expect(unsafe_code, reason = "libraries of NVIDIA's, whose start has no conditions")]
pub fn open_first(name: &str, folders: &[&str]) -> Result<Library, String> {
    let open = |path: &str| {
        let opened = unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        opened.map(Library::from)
    };
    match open(name) {
        Ok(library) => Ok(library),
        Err(error) => {
            let found = folders.iter().find_map(|folder| open(&format!("{folder}/{name}")).ok());
            // The error itself says no more than that it failed.
            found.ok_or_else(|| error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
    }
}

//! Which device computes: chosen on the command line, examined before anything else is done. Owns the sentences about
//! GPUs that cannot be used; what they mean for the process is `contract`'s table.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod driver;
mod host;
#[cfg(feature = "cuda")]
mod libraries;
mod memory;

use candle_core::Device;
use clap::ValueEnum;
use thiserror::Error;
use vlm_contract::diagnosis::Cause;

pub use memory::{Demand, Taken, check_host_memory, check_memory, taken};

/// The oldest driver with CUDA 13.0, whose machine code and libraries are used.
pub const OLDEST_DRIVER: &str = "580";

/// What the driver says where a GPU's memory does not suffice.
pub const NO_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";

/// What is to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The first GPU, or the CPU where there is none.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

/// Why a GPU cannot be used, as a sentence without full stop.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The binary has no kernels.
    #[error("--device cuda was given, but this build is for CPUs alone")]
    NotBuilt,
    /// There is no driver.
    #[error("no NVIDIA driver was found: {0}")]
    NoDriver(String),
    /// The driver has no GPU to offer.
    #[error("the NVIDIA driver shows no GPU ({0})")]
    NoGpu(String),
    /// The driver cannot run code of CUDA 13.
    #[error("the NVIDIA driver {driver} has CUDA {cuda}, but CUDA 13.0 is needed, which came with {OLDEST_DRIVER}")]
    DriverTooOld {
        /// Its version, or `of unknown version`.
        driver: String,
        /// The newest CUDA that it can run.
        cuda: String,
    },
    /// There are no kernels for this generation.
    #[error("{name} has compute capability {major}.{minor}, and kernels are for 8.0 and later")]
    Generation {
        /// What the driver calls it.
        name: String,
        /// Compute capability.
        major: i32,
        /// Its second number.
        minor: i32,
    },
    /// A library of CUDA's cannot be opened.
    #[error("{library} cannot be opened: {reason}")]
    Library {
        /// Its file name.
        library: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The model does not fit.
    #[error(
        "the weights take {weights} bytes and the KV cache {kv} ({sequence} for each sequence of {tokens} tokens), but \
         {free} bytes of {place} are free"
    )]
    Memory {
        /// Of the weights.
        weights: u64,
        /// Of all keys and values.
        kv: u64,
        /// Of those of one sequence.
        sequence: u64,
        /// Its tokens.
        tokens: usize,
        /// What there is.
        free: u64,
        /// Of what.
        place: &'static str,
    },
    /// The driver failed.
    #[error("the GPU cannot be used: {0}")]
    Failed(String),
}

impl DeviceError {
    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotBuilt => Cause::InvalidArguments,
            Self::NoDriver(_) | Self::NoGpu(_) => Cause::NoGpu,
            Self::DriverTooOld { .. } => Cause::DriverTooOld,
            Self::Generation { .. } => Cause::UnsupportedGpu,
            Self::Library { .. } => Cause::CudaLibraryMissing,
            Self::Memory { .. } => Cause::GpuOutOfMemory,
            Self::Failed(_) => Cause::StartFailed,
        }
    }
}

/// The device of `choice`, examined and ready.
///
/// # Errors
/// A GPU that is asked for, or found, but cannot be used. One that is not there is no error for [`DeviceChoice::Auto`].
pub fn open(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda => gpu(),
        DeviceChoice::Auto => match gpu() {
            Err(DeviceError::NotBuilt) => Ok(Device::Cpu),
            Err(reason @ (DeviceError::NoDriver(_) | DeviceError::NoGpu(_))) => {
                tracing::info!(%reason, "computing on the CPU");
                Ok(Device::Cpu)
            }
            found => found,
        },
    }
}

/// Loads the project's kernels into `device`, so that no step waits for their code. A CPU has it.
///
/// # Errors
/// What the driver says.
pub fn load_code(device: &Device) -> Result<(), DeviceError> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return crate::ops::cuda::load_all(device).map_err(|error| DeviceError::Failed(error.to_string()));
    }
    debug_assert!(device.is_cpu());
    Ok(())
}

/// Says to a profiler that waits for it whether it is to look at what `device` does from now on. A CPU has none that waits.
///
/// # Errors
/// What the driver says.
pub fn show(device: &Device, on: bool) -> Result<(), DeviceError> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::show(device, on);
    }
    debug_assert!(device.is_cpu(), "on: {on}");
    Ok(())
}

/// Whether no work on `device` can succeed any more: an error on a GPU that stays, such as an access outside of memory.
pub fn is_lost(device: &Device) -> bool {
    !device.is_cpu() && device.synchronize().is_err()
}

/// What `device` is called.
pub fn name(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::name(device);
    }
    if device.is_cpu() { format!("CPU, {} threads", rayon::current_num_threads()) } else { "GPU".to_owned() }
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Device, DeviceError> {
    cuda::open()
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_there_for_whoever_does_not_ask_for_a_gpu() {
        assert!(open(DeviceChoice::Cpu).unwrap().is_cpu());
        #[cfg(not(feature = "cuda"))]
        assert!(open(DeviceChoice::Auto).unwrap().is_cpu());
        #[cfg(not(feature = "cuda"))]
        assert_eq!(open(DeviceChoice::Cuda).unwrap_err().cause(), Cause::InvalidArguments);
    }

    #[test]
    fn sentences_say_what_was_found_and_what_is_needed() {
        let old = DeviceError::DriverTooOld { driver: "550.54.15".into(), cuda: "12.4".into() };
        let sentence = old.to_string();
        assert!(["550.54.15", "12.4", "13.0", "580"].iter().all(|part| sentence.contains(part)), "{sentence}");
        let small =
            DeviceError::Memory { weights: 7, kv: 6, sequence: 3, tokens: 2, free: 12, place: "the GPU's memory" };
        assert_eq!(small.cause(), Cause::GpuOutOfMemory);
        assert!(small.to_string().contains("12 bytes of the GPU's memory are free"), "{small}");
    }
}

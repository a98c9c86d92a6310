//! Whether a model fits into a GPU's memory, or the machine's, from its description: asked before the first tensor is
//! read.

use candle_core::Device;
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::quantization::Quantization;

use super::{DeviceError, host};
use crate::checkpoint::Checkpoint;
use crate::precision::Precision;

const GPU: &str = "the GPU's memory";
const HOST: &str = "this machine's memory";

/// What a model will ask of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The weights.
    pub weights: u64,
    /// Keys and values of one sequence.
    pub sequence: u64,
    /// Tokens of that sequence.
    pub tokens: usize,
    /// Keys and values of all.
    pub kv: u64,
}

impl Demand {
    /// Of `checkpoint`, held as `precision` says, with a KV cache for `sequences` of `tokens` tokens.
    pub fn of(checkpoint: &Checkpoint, precision: Precision, tokens: usize, sequences: usize) -> Self {
        let config = checkpoint.config();
        let head = if checkpoint.decoder().head().is_some() { Head::Stored } else { Head::Tied };
        let element = precision.dtype.size_in_bytes();
        let size = CheckpointSize::of(config, head);
        let mut weights = 0u64;
        for tensors in size.tensors() {
            let (plain, quantised) = (tensors.bytes(Quantization::None), tensors.bytes(precision.quantization));
            // Those that stay as they are come at two bytes a number.
            let bytes = if plain == quantised { plain / 2 * element as u64 } else { quantised };
            weights = weights.saturating_add(bytes);
        }
        let sequence = precision.kv_bytes_per_token(&config.text).saturating_mul(tokens as u64);
        Self { weights, sequence, tokens, kv: sequence.saturating_mul(sequences as u64) }
    }

    fn refusal(self, free: u64, place: &'static str) -> Option<DeviceError> {
        let Self { weights, sequence, tokens, kv } = self;
        let fits = weights.saturating_add(kv) <= free;
        (!fits).then_some(DeviceError::Memory { weights, kv, sequence, tokens, free, place })
    }
}

/// Refuses a model for which `device` has no room. A CPU has what the system gives it.
///
/// # Errors
/// [`DeviceError::Memory`].
pub fn check_memory(device: &Device, demand: Demand) -> Result<(), DeviceError> {
    free_bytes(device)?.and_then(|free| demand.refusal(free, GPU)).map_or(Ok(()), Err)
}

/// Refuses a model for which this machine has no room now, where the kernel says so. A server asks for none: a container
/// has its limit.
///
/// # Errors
/// [`DeviceError::Memory`].
pub fn check_host_memory(demand: Demand) -> Result<(), DeviceError> {
    host::available_bytes().and_then(|free| demand.refusal(free, HOST)).map_or(Ok(()), Err)
}

/// What of a GPU's memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// By tensors, now.
    pub used_bytes: u64,
    /// By tensors, the most at a time since it was asked last.
    pub most_bytes: u64,
    /// By everything else: contexts, code, the libraries' own, other processes.
    pub beside_bytes: u64,
}

/// What of the memory of `device` is taken; `None` on a CPU.
///
/// # Errors
/// What the driver says.
#[cfg(feature = "cuda")]
pub fn taken(device: &Device) -> Result<Option<Taken>, DeviceError> {
    match device {
        Device::Cuda(device) => super::cuda::taken(device).map(Some),
        _ => Ok(None),
    }
}

/// What of the memory of `device` is taken; `None` on a CPU.
///
/// # Errors
/// None without CUDA.
#[cfg(not(feature = "cuda"))]
pub fn taken(_: &Device) -> Result<Option<Taken>, DeviceError> {
    Ok(None)
}

#[cfg(feature = "cuda")]
fn free_bytes(device: &Device) -> Result<Option<u64>, DeviceError> {
    match device {
        Device::Cuda(device) => super::cuda::free_bytes(device).map(Some),
        _ => Ok(None),
    }
}

#[cfg(not(feature = "cuda"))]
#[expect(clippy::unnecessary_wraps, reason = "a build with CUDA asks the driver")]
fn free_bytes(_: &Device) -> Result<Option<u64>, DeviceError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { weights: 70, sequence: 10, tokens: 5, kv: 30 };

    #[test]
    fn a_model_that_fits_to_the_byte_is_taken() {
        assert_eq!(DEMAND.refusal(100, GPU), None);
        let refused = DEMAND.refusal(99, GPU).unwrap();
        assert_eq!(refused, DeviceError::Memory { weights: 70, kv: 30, sequence: 10, tokens: 5, free: 99, place: GPU });
        let endless = Demand { weights: u64::MAX, ..DEMAND };
        assert!(check_memory(&Device::Cpu, endless).is_ok());
        let sentence = check_host_memory(endless).unwrap_err().to_string();
        assert!(sentence.contains(HOST), "{sentence}");
        assert!(check_host_memory(DEMAND).is_ok());
    }
}

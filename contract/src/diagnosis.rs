//! Why a model server could not start: one table of exit code, reason and what to do.
//!
//! The runtime exits with [`Cause::exit_code`] and writes a [`Diagnosis`] as its termination
//! message; the operator reads both and shows the reason on the `VisionModel`.

use serde::{Deserialize, Serialize};

/// Cause of a failed start. Exit codes stay below 64, away from those of shells and signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The checkpoint's directory, repository or revision, or a file that it must have, does not exist.
    ModelNotFound,
    /// A weight file is truncated, malformed, or lacks a tensor.
    WeightsCorrupt,
    /// `config.json` names a model or a feature that is not served.
    UnsupportedArchitecture,
    /// The hub does not let this token, or nobody's, read the repository.
    ModelAccessDenied,
    /// The hub could not be reached, or broke off again and again.
    WeightsDownloadFailed,
    /// A flag has an unusable value.
    InvalidArguments,
    /// Anything else, such as a port already in use.
    StartFailed,
    /// A GPU is asked for, and there is no driver or no GPU.
    #[serde(rename = "NoGPU")]
    NoGpu,
    /// The GPU's driver is older than the CUDA of this program.
    DriverTooOld,
    /// There is no code for this generation of GPUs.
    #[serde(rename = "UnsupportedGPU")]
    UnsupportedGpu,
    /// A library of CUDA's is missing or broken.
    CudaLibraryMissing,
    /// Weights and KV cache do not fit into the GPU's memory.
    #[serde(rename = "GPUOutOfMemory")]
    GpuOutOfMemory,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 12] = [
        Self::ModelNotFound,
        Self::WeightsCorrupt,
        Self::UnsupportedArchitecture,
        Self::ModelAccessDenied,
        Self::WeightsDownloadFailed,
        Self::InvalidArguments,
        Self::StartFailed,
        Self::NoGpu,
        Self::DriverTooOld,
        Self::UnsupportedGpu,
        Self::CudaLibraryMissing,
        Self::GpuOutOfMemory,
    ];

    /// Exit code of the process.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::InvalidArguments => 2,
            Self::ModelNotFound => 10,
            Self::WeightsCorrupt => 11,
            Self::UnsupportedArchitecture => 12,
            Self::ModelAccessDenied => 13,
            Self::WeightsDownloadFailed => 14,
            Self::StartFailed => 20,
            Self::NoGpu => 30,
            Self::DriverTooOld => 31,
            Self::UnsupportedGpu => 32,
            Self::CudaLibraryMissing => 33,
            Self::GpuOutOfMemory => 34,
        }
    }

    /// The reason as it stands in conditions.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ModelNotFound => "ModelNotFound",
            Self::WeightsCorrupt => "WeightsCorrupt",
            Self::UnsupportedArchitecture => "UnsupportedArchitecture",
            Self::ModelAccessDenied => "ModelAccessDenied",
            Self::WeightsDownloadFailed => "WeightsDownloadFailed",
            Self::InvalidArguments => "InvalidArguments",
            Self::StartFailed => "StartFailed",
            Self::NoGpu => "NoGPU",
            Self::DriverTooOld => "DriverTooOld",
            Self::UnsupportedGpu => "UnsupportedGPU",
            Self::CudaLibraryMissing => "CudaLibraryMissing",
            Self::GpuOutOfMemory => "GPUOutOfMemory",
        }
    }

    /// What a person does about it, as the end of a sentence.
    pub const fn mend(self) -> &'static str {
        match self {
            Self::ModelNotFound => "check spec.model.uri or --model, and that what it names is there",
            Self::WeightsCorrupt => "fetch the weights again and compare their checksums",
            Self::UnsupportedArchitecture => "use a checkpoint of a supported architecture",
            Self::ModelAccessDenied => {
                "check the name in spec.model.uri, accept the model's terms on the hub, and put a token that may read it \
                 into the Secret of spec.model.tokenSecretRef"
            }
            Self::WeightsDownloadFailed => "check that the hub or its mirror can be reached from the cluster",
            Self::InvalidArguments => "correct the flag",
            Self::StartFailed => "see the container's log",
            Self::NoGpu => "run it on a node with a GPU and its container toolkit, or with --device cpu",
            Self::DriverTooOld => "update the driver of the node",
            Self::UnsupportedGpu => "run it on a newer GPU, or with --device cpu",
            Self::CudaLibraryMissing => "use the image that brings the libraries of CUDA 13, or install them",
            Self::GpuOutOfMemory => {
                "use a GPU with more memory, quantise the model, or lower the longest sequence or the concurrency"
            }
        }
    }

    /// The cause of an exit code, if it is one of the table.
    pub fn from_exit_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| i32::from(cause.exit_code()) == code)
    }
}

/// The termination message of a server that could not start, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Which row of the table.
    pub reason: Cause,
    /// One sentence: what is wrong, and what to do.
    pub message: String,
}

impl Diagnosis {
    /// Joins what is wrong (without a full stop) with the mend of its cause.
    pub fn new(reason: Cause, wrong: impl std::fmt::Display) -> Self {
        Self { reason, message: format!("{wrong}; {}", reason.mend()) }
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.reason(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_exit_code_and_reason() {
        for (i, a) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(Cause::from_exit_code(i32::from(a.exit_code())), Some(a));
            for b in &Cause::ALL[i + 1..] {
                assert_ne!(a.exit_code(), b.exit_code());
                assert_ne!(a.reason(), b.reason());
            }
        }
        assert_eq!(Cause::from_exit_code(137), None);
    }

    #[test]
    fn the_termination_message_spells_the_reason_as_the_condition_does() {
        for cause in Cause::ALL {
            let written = serde_json::to_value(Diagnosis::new(cause, "x")).unwrap();
            assert_eq!(written["reason"], cause.reason());
            let read: Diagnosis = serde_json::from_value(written).unwrap();
            assert_eq!(read.reason, cause);
        }
    }
}

//! Why the server could not start or go on, as a row of the contract's table, and where it is
//! written: one sentence on standard error, JSON in the termination log.

use std::net::SocketAddr;
use std::path::Path;

use vlm_contract::diagnosis::{Cause, Diagnosis};
use vlm_hub::HubError;

use crate::checkpoint::CheckpointError;
use crate::device::{DeviceError, NO_MEMORY};
use crate::engine::Stop;

/// The longest message that is written; Kubernetes keeps 4096 bytes of a termination log.
const LONGEST_MESSAGE: usize = 2048;

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag has an unusable value.
    #[error("{0}")]
    Arguments(String),
    /// The GPU cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The checkpoint cannot be served.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part of the process that everything needs could not be set up.
    #[error("cannot set up {what}: {source}")]
    System {
        /// Which part.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Loading ended by a bug.
    #[error("loading the model ended unexpectedly: {0}")]
    LoadPanicked(String),
    /// The engine thread ended while the server was running.
    #[error(transparent)]
    EngineStopped(#[from] Stop),
}

impl StartError {
    /// The row of the table that it belongs to.
    pub fn cause(&self) -> Cause {
        match self {
            // Others may have taken it since it was asked how much there is.
            Self::Device(DeviceError::Failed(reason)) | Self::Checkpoint(CheckpointError::Start(reason))
                if reason.contains(NO_MEMORY) =>
            {
                Cause::GpuOutOfMemory
            }
            Self::Arguments(_) => Cause::InvalidArguments,
            Self::Device(error) => error.cause(),
            Self::Checkpoint(error) => error.cause(),
            Self::Hub(error) => error.cause(),
            Self::Listen { .. } | Self::System { .. } | Self::LoadPanicked(_) | Self::EngineStopped(_) => {
                Cause::StartFailed
            }
        }
    }

    /// What a person reads.
    pub fn diagnosis(&self) -> Diagnosis {
        let (cause, said) = (self.cause(), self.to_string());
        // A trace of calls, from the line of its first on, is nothing for people.
        let lines = said.lines().take_while(|line| !line.trim_start().starts_with("0: "));
        let line = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
        let line = if cause == Cause::GpuOutOfMemory && said.contains(NO_MEMORY) {
            format!("the GPU has too little free memory for the model and the program ({line})")
        } else {
            line
        };
        Diagnosis::new(cause, shortened(&line, LONGEST_MESSAGE))
    }
}

/// Writes the diagnosis to standard error and, if named, to the termination log.
pub fn report(diagnosis: &Diagnosis, termination_log: Option<&Path>) {
    eprintln!("{diagnosis}");
    let Some(path) = termination_log else { return };
    let written = serde_json::to_vec(diagnosis).map_err(std::io::Error::other);
    if let Err(error) = written.and_then(|json| std::fs::write(path, json)) {
        tracing::warn!(path = %path.display(), %error, "cannot write the termination log");
    }
}

/// The first `bytes` bytes, cut at a character.
fn shortened(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_one_short_line_with_its_mend() {
        let error = StartError::LoadPanicked(format!("a\nb {}", "é".repeat(4000)));
        let diagnosis = error.diagnosis();
        assert_eq!(diagnosis.reason, Cause::StartFailed);
        assert!(diagnosis.message.len() < 2200 && !diagnosis.message.contains('\n'));
        assert!(diagnosis.message.ends_with("see the container's log"));
    }

    #[test]
    fn memory_that_is_gone_is_told_as_such_whoever_notices_and_without_a_trace() {
        let said = format!("DriverError({NO_MEMORY}, \"out of memory\")\n   0: <unknown>\n   1: <unknown>");
        let device = StartError::Device(DeviceError::Failed(said.clone()));
        for error in [device, StartError::Checkpoint(CheckpointError::Start(said))] {
            let Diagnosis { reason, message, .. } = error.diagnosis();
            assert_eq!((reason, reason.exit_code()), (Cause::GpuOutOfMemory, 34));
            assert!(message.contains("too little free memory") && !message.contains("unknown"), "{message}");
        }
        let other = StartError::Device(DeviceError::Failed("CUDA_ERROR_UNKNOWN".to_owned()));
        assert_eq!(other.cause(), Cause::StartFailed);
    }

    #[test]
    fn a_gpu_that_is_lost_is_told_apart_from_a_fault_of_the_program() {
        let [fault, lost] = [Stop::Fault, Stop::DeviceLost].map(|stop| StartError::EngineStopped(stop).diagnosis());
        assert_eq!([fault.reason, lost.reason], [Cause::StartFailed; 2]);
        assert!(lost.message.contains("GPU") && !fault.message.contains("GPU"), "{lost} {fault}");
    }

    #[test]
    fn a_port_in_use_names_the_address() {
        let error =
            StartError::Listen { address: ([127, 0, 0, 1], 8000).into(), source: std::io::ErrorKind::AddrInUse.into() };
        assert!(error.diagnosis().message.contains("127.0.0.1:8000"));
        assert_eq!(error.cause().exit_code(), 20);
    }

    #[test]
    fn the_termination_log_holds_the_diagnosis_as_json() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let diagnosis = StartError::Arguments("`--x` is wrong".into()).diagnosis();
        report(&diagnosis, Some(&path));
        let read: Diagnosis = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, diagnosis);
        report(&diagnosis, Some(&directory.path().join("no/such/folder")));
    }
}

//! A checkpoint directory: configuration, layout of the weights, typed tensors.

use std::path::{Path, PathBuf};

use thiserror::Error;
use vlm_contract::diagnosis::Cause;

/// An opened checkpoint. Weights are mapped, not yet read.
pub struct Checkpoint {
    #[expect(dead_code)]
    dir: PathBuf,
}

/// Why a checkpoint cannot be served: what is wrong, without a full stop.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A directory or file that must be there is missing or unreadable.
    #[error("{path}: {source}")]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl CheckpointError {
    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotFound { .. } => Cause::ModelNotFound,
        }
    }
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let _ = dir;
        todo!()
    }
}

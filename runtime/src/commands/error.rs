//! Why a command ended without what it was asked for, and the exit code of each reason. Owns the codes from 1 to 9;
//! those of a model that cannot be loaded are the contract's.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::device::DeviceError;
use crate::diagnose::StartError;
use crate::image::ImageError;
use crate::prompt::PromptError;

/// One sentence without full stop: what is wrong, and where it is not plain, what to do.
#[derive(Debug, Error)]
pub enum CommandError {
    /// What was to be proven does not hold.
    #[error("{0}")]
    Off(String),
    /// The model cannot be loaded, or a flag is wrong.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The model, or what is to be measured with it, does not fit into the memory of this machine.
    #[error("{0}; use a machine with more memory, quantise the model, or lower the prompt, the answer or the batch")]
    HostMemory(DeviceError),
    /// A file that was named, or must be there, is missing or unreadable.
    #[error("{}: {source}; {mend}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        mend: &'static str,
    },
    /// A file with the reference's values says something that cannot be.
    #[error("{}: {reason}; write it again as docs/verify.md says", path.display())]
    Expected {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture cannot be used.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The prompt cannot be used with these pictures.
    #[error("{}: {source}", path.display())]
    Prompt {
        /// The file with the prompt.
        path: PathBuf,
        /// Why.
        source: PromptError,
    },
    /// More tokens than the model has positions.
    #[error(
        "the prompt has {prompt} tokens and {answer} are to follow, but the model has {limit} positions; \
         shorten the prompt, use fewer pictures or generate fewer tokens"
    )]
    TooLong {
        /// Tokens of the prompt, those of pictures included.
        prompt: usize,
        /// Tokens to generate.
        answer: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// The model failed while it ran.
    #[error("the model does not run on this prompt: {0}")]
    Compute(String),
    /// A signal came before the work was done.
    #[error("stopped by a signal; the next call goes on from here")]
    Stopped,
    /// A result cannot be written.
    #[error("cannot write {}: {reason}; {mend}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
        /// What to do.
        mend: &'static str,
    },
}

impl CommandError {
    /// Exit code of the process, its own for every reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Off(_) => 1,
            Self::Start(error) => error.cause().exit_code(),
            // As on a GPU, though there is none to name.
            Self::HostMemory(error) => error.cause().exit_code(),
            Self::Read { .. } => 3,
            Self::Expected { .. } => 4,
            Self::Image { .. } => 5,
            Self::Prompt { .. } => 6,
            Self::TooLong { .. } => 7,
            Self::Compute(_) => 8,
            Self::Write { .. } => 9,
            // As shells have it for SIGTERM.
            Self::Stopped => 143,
        }
    }

    pub(super) fn expected(path: &Path, reason: impl Into<String>) -> Self {
        Self::Expected { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn write(path: &Path, reason: &impl ToString) -> Self {
        let mend = "name a directory that can be written with --out";
        Self::Write { path: path.to_owned(), reason: reason.to_string(), mend }
    }
}

impl From<CheckpointError> for CommandError {
    fn from(error: CheckpointError) -> Self {
        Self::Start(error.into())
    }
}

impl From<DeviceError> for CommandError {
    fn from(error: DeviceError) -> Self {
        Self::Start(error.into())
    }
}

impl From<candle_core::Error> for CommandError {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.to_string())
    }
}

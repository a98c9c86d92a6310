//! Everything that can go wrong between a URI and a directory of weights, and which row of the diagnosis table
//! it is. Texts of the hub are cut and stripped before they get here; the token never does.

use std::path::{Path, PathBuf};

use thiserror::Error;
use vlm_contract::diagnosis::Cause;

/// What is wrong, without a full stop.
#[derive(Debug, Error)]
pub enum HubError {
    /// Endpoint or token cannot be used, or no TLS can be set up.
    #[error("{0}")]
    Settings(String),
    /// 401 or 403.
    #[error("the hub refuses {what} (HTTP {status}{}){}", quoted(said), if *with_token {
        ": the token that was given may not read it"
    } else {
        ": it is private, gated or does not exist, and no token was given"
    })]
    AccessDenied {
        /// What was asked for.
        what: String,
        /// The answer's status.
        status: u16,
        /// What the hub said.
        said: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// 404, or a file that is not listed.
    #[error("the hub does not have {what}{}", quoted(said))]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the hub said.
        said: String,
    },
    /// No usable answer, however often it was asked.
    #[error("{what} could not be fetched in {attempts} attempts, the last of which ended with: {reason}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// How often.
        attempts: u32,
        /// How the last attempt ended.
        reason: String,
    },
    /// An answer that a second question would not change.
    #[error("the hub's answer about {what} cannot be used: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: String,
    },
    /// More bytes than are read of such a file.
    #[error("{what} has more than the {limit} bytes that are read")]
    TooLarge {
        /// Which file or answer.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file whose name leads out of the directory.
    #[error("the repository lists the file {path:?}, which is no plain path inside it")]
    UnsafePath {
        /// The path, cut.
        path: String,
    },
    /// A file is malformed.
    #[error("{file} is malformed: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not what the hub lists.
    #[error("{file} has the {kind} {actual}, but the hub lists {expected}")]
    Checksum {
        /// The file.
        file: String,
        /// Which checksum.
        kind: &'static str,
        /// Of the bytes that came.
        actual: String,
        /// As listed.
        expected: String,
    },
    /// Nothing that could be weights.
    #[error(
        "{place} holds none of model.safetensors.index.json, model.safetensors, pytorch_model.bin.index.json and \
         pytorch_model.bin"
    )]
    NoWeights {
        /// The repository or directory.
        place: String,
    },
    /// A file of a directory is missing or cannot be read.
    #[error("{}: {source}", path.display())]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory holds something else.
    #[error("{} holds {found}, not {wanted}; name another directory", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was to be fetched into it.
        wanted: String,
    },
}

impl HubError {
    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Settings(_) | Self::Occupied { .. } => Cause::InvalidArguments,
            Self::AccessDenied { .. } => Cause::ModelAccessDenied,
            Self::NotFound { .. } | Self::NoWeights { .. } | Self::Missing { .. } => Cause::ModelNotFound,
            Self::Unreachable { .. } | Self::Answer { .. } => Cause::WeightsDownloadFailed,
            Self::TooLarge { .. } | Self::UnsafePath { .. } | Self::Malformed { .. } | Self::Checksum { .. } => {
                Cause::WeightsCorrupt
            }
            Self::Write { .. } => Cause::StartFailed,
        }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(file: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { file: file.into(), reason: printable(&reason.to_string()) }
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(", which says {said:?}") }
}

/// A text of others on one line of at most 300 characters.
pub(crate) fn printable(text: &str) -> String {
    const CHARACTERS: usize = 300;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut: String = plain.take(CHARACTERS).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        cut.push('…');
    }
    cut
}

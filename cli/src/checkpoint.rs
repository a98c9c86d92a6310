//! What is known of a checkpoint without its weights: its description, the sizes of its tensors, its licence. The one
//! place that reads any; from a directory.

mod files;
mod header;
mod licence;

use std::path::{Path, PathBuf};

use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::architecture::{ArchitectureError, ModelConfig, describe};
use vlm_catalog::checkpoint::{CheckpointSize, Head, StoredError};

/// What is known of a checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its description.
    pub config: ModelConfig,
    /// Its tensors: as the headers of its files list them, or as described where they have none.
    pub size: CheckpointSize,
    /// Whether the sizes are those of the headers.
    pub exact: bool,
    /// Bytes of its weight files; `None` when there are none here.
    pub weight_bytes: Option<u64>,
    /// Its licence, as its card says.
    pub licence: Option<String>,
}

/// Why nothing is known; without a full stop.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The model is of a kind that is not served.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// The tensors are not those of the model.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// Reads the checkpoint in `dir`: `config.json`, and of the weights and the card what is there.
///
/// # Errors
/// When `config.json` is missing or of a model that is not served, or a file is not what its name says.
pub fn read(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = dir.join("config.json");
    let json = files::small(&path)?
        .ok_or_else(|| CheckpointError::Read { path: path.clone(), source: std::io::ErrorKind::NotFound.into() })?;
    let raw: RawConfig = files::json(&path, &json)?;
    let config = describe(&raw)?;
    let card = files::small(&dir.join("README.md"))?;
    let licence = card.as_deref().map(String::from_utf8_lossy).and_then(|card| licence::of_card(&card));
    let found = files::weights(dir)?;
    let size = match &found.tensors {
        Some(tensors) => CheckpointSize::of_stored(&config, tensors.iter().map(|(name, shape)| (&**name, &**shape)))?,
        None => CheckpointSize::of(&config, Head::Stored),
    };
    Ok(Checkpoint { config, size, exact: found.tensors.is_some(), weight_bytes: found.bytes, licence })
}

#[cfg(test)]
mod tests;

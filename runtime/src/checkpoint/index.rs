//! Which weight files a directory has, by the hub's rules for all sources.

use std::path::Path;

use vlm_hub::index::{CANDIDATES, Index, IndexError, Kind};

use super::{CheckpointError, read};

/// What a directory has of weights.
pub(super) enum Found {
    /// Shards, as the index of this name lists them.
    Index(&'static str, Index, Kind),
    /// One file.
    Single(&'static str, Kind),
}

/// Looks for weights in `dir`.
pub(super) fn find(dir: &Path) -> Result<Found, CheckpointError> {
    for candidate in CANDIDATES {
        let path = dir.join(candidate.index);
        if let Some(json) = read(&path)? {
            let listed = Index::parse(&json).map_err(|error| unusable(candidate.index, &path, error))?;
            return Ok(Found::Index(candidate.index, listed, candidate.kind));
        }
        // A link into nowhere is there, and opening it says so.
        if dir.join(candidate.single).symlink_metadata().is_ok() {
            return Ok(Found::Single(candidate.single, candidate.kind));
        }
    }
    Err(CheckpointError::NoWeights { dir: dir.to_owned() })
}

fn unusable(index: &'static str, path: &Path, error: IndexError) -> CheckpointError {
    match error {
        IndexError::Malformed(reason) => CheckpointError::json(path, &reason),
        IndexError::UnsafePath { tensor, file } => CheckpointError::UnsafePath { index, tensor, file },
        IndexError::Twice { name, files } => CheckpointError::TwiceStored { name, files },
    }
}

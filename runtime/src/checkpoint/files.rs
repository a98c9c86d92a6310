//! The small files of a checkpoint: read whole, and only if they are what their names say.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use vlm_hub::index::MAX_BYTES;

use super::CheckpointError;

/// A file's bytes; `None` when it does not exist.
///
/// # Errors
/// When it cannot be read, is no regular file or is too large.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::not_found(path, error)),
    };
    // Opening a pipe would wait for its other end.
    if !meta.is_file() {
        return Err(CheckpointError::json(path, &"it is not a regular file"));
    }
    let (mut bytes, file) = (Vec::new(), File::open(path).map_err(|e| CheckpointError::not_found(path, e))?);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| CheckpointError::not_found(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CheckpointError::json(path, &format!("it has more than the {MAX_BYTES} bytes that are read")));
    }
    Ok(Some(bytes))
}

/// A JSON file; `None` when it does not exist.
///
/// # Errors
/// As [`read`], and when it does not parse as `T`.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| CheckpointError::json(path, &e))?;
    json.end().map_err(|e| CheckpointError::json(path, &e))?;
    Ok(Some(value))
}

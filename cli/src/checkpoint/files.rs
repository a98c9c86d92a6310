//! The files of a checkpoint's directory: small ones whole, of weights only their headers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{CheckpointError, header};

/// Bytes that a configuration, an index or a card may have.
const MAX_SMALL: u64 = 4 << 20;
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// What the weight files tell.
pub(super) struct Found {
    /// Names and shapes; `None` when there are no safetensors.
    pub tensors: Option<Vec<(String, Vec<usize>)>>,
    /// Bytes of all files.
    pub bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// The headers of all safetensors in `dir`.
pub(super) fn weights(dir: &Path) -> Result<Found, CheckpointError> {
    let index = dir.join(INDEX);
    let files: BTreeSet<String> = match small(&index)? {
        Some(json) => {
            let files: BTreeSet<String> = self::json::<Index>(&index, &json)?.weight_map.into_values().collect();
            if let Some(file) = files.iter().find(|file| file.contains(['/', '\\', '\0']) || file.contains("..")) {
                return Err(malformed(&index, &format!("it names the file {file:?}, which is no plain name")));
            }
            files
        }
        None if dir.join(SINGLE).exists() => [SINGLE.to_owned()].into(),
        None => return Ok(Found { tensors: None, bytes: None }),
    };
    let (mut tensors, mut bytes) = (Vec::new(), 0_u64);
    for file in files {
        let path = dir.join(file);
        let (mut opened, size) = open(&path)?.ok_or_else(|| not_found(&path))?;
        bytes = bytes.saturating_add(size);
        tensors.extend(header::tensors(&mut opened, size).map_err(|reason| malformed(&path, &reason))?);
    }
    Ok(Found { tensors: Some(tensors), bytes: Some(bytes) })
}

/// A small file whole; `None` when it does not exist.
pub(super) fn small(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let Some((file, _)) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_SMALL + 1).read_to_end(&mut bytes).map_err(|source| read(path, source))?;
    if bytes.len() as u64 > MAX_SMALL {
        return Err(malformed(path, &format!("it has more than the {MAX_SMALL} bytes that are read")));
    }
    Ok(Some(bytes))
}

pub(super) fn json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, CheckpointError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| malformed(path, &e.to_string()))?;
    reader.end().map_err(|e| malformed(path, &e.to_string()))?;
    Ok(value)
}

/// A regular file and its size: opening a pipe would wait for its other end.
fn open(path: &Path) -> Result<Option<(File, u64)>, CheckpointError> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(path, error)),
    };
    if !meta.is_file() {
        return Err(malformed(path, "it is not a regular file"));
    }
    Ok(Some((File::open(path).map_err(|source| read(path, source))?, meta.len())))
}

fn not_found(path: &Path) -> CheckpointError {
    read(path, ErrorKind::NotFound.into())
}

fn read(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Read { path: path.to_owned(), source }
}

fn malformed(path: &Path, reason: &str) -> CheckpointError {
    CheckpointError::Malformed { path: path.to_owned(), reason: reason.chars().take(500).collect() }
}

//! The facts of a checkpoint in a directory. Blocks.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::facts::{Facts, unique};
use crate::header::{self, TensorPlace};
use crate::index::{Index, Kind, MAX_BYTES};
use crate::{HubError, needed};

/// Of the checkpoint in `dir`.
///
/// # Errors
/// When a file is missing, malformed or too large.
pub fn facts(dir: &Path) -> Result<Facts, HubError> {
    std::fs::read_dir(dir).map_err(|e| missing(dir, e))?;
    let config = small(&dir.join(needed::CONFIG))?;
    let has = |name: &str| dir.join(name).symlink_metadata().is_ok();
    let (candidate, indexed) =
        needed::weights(has).ok_or_else(|| HubError::NoWeights { place: dir.display().to_string() })?;
    let names: Vec<String> = if indexed {
        let path = dir.join(candidate.index);
        let index = Index::parse(&small(&path)?).map_err(|e| HubError::malformed(path.display().to_string(), e))?;
        index.files().into_iter().map(ToOwned::to_owned).collect()
    } else {
        vec![candidate.single.to_owned()]
    };
    let (mut weight_bytes, mut found) = (0, Vec::new());
    for name in names {
        let path = dir.join(name);
        let (mut file, size) = open(&path)?;
        weight_bytes += size;
        if candidate.kind == Kind::Safetensors {
            found.push(tensors(&mut file, size, &path)?);
        }
    }
    let tensors = match candidate.kind {
        Kind::Safetensors => Some(unique(found, &dir.display().to_string())?),
        Kind::Torch => None,
    };
    Ok(Facts { revision: None, config, weight_bytes, tensors })
}

fn tensors(file: &mut File, size: u64, path: &Path) -> Result<Vec<TensorPlace>, HubError> {
    let malformed = |e: header::HeaderError| HubError::malformed(path.display().to_string(), e);
    let mut begin = Vec::new();
    let mut read = |most: u64, bytes: &mut Vec<u8>| file.take(most).read_to_end(bytes).map_err(|e| missing(path, e));
    read(header::PREFIX_BYTES as u64, &mut begin)?;
    let length = header::length(&begin, size).map_err(malformed)?;
    let mut json = Vec::new();
    read(length as u64, &mut json)?;
    header::parse(&json, size).map_err(malformed)
}

/// A small file, such as a configuration or a card, whole.
///
/// # Errors
/// When it is missing, no regular file, or has more than [`MAX_BYTES`].
pub fn small(path: &Path) -> Result<Vec<u8>, HubError> {
    let (file, size) = open(path)?;
    let too_large = || HubError::TooLarge { what: path.display().to_string(), limit: MAX_BYTES };
    if size > MAX_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| missing(path, e))?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn open(path: &Path) -> Result<(File, u64), HubError> {
    let meta = std::fs::metadata(path).map_err(|e| missing(path, e))?;
    // Opening a pipe would wait for its other end.
    if !meta.is_file() {
        return Err(missing(path, std::io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok((File::open(path).map_err(|e| missing(path, e))?, meta.len()))
}

fn missing(path: &Path, source: std::io::Error) -> HubError {
    HubError::Missing { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny-llava/model"))
    }

    #[test]
    fn a_directory_tells_what_a_repository_would() {
        let facts = facts(model()).unwrap();
        let tensors = facts.tensors.unwrap();
        assert_eq!(facts.config, std::fs::read(model().join("config.json")).unwrap());
        assert_eq!(facts.weight_bytes, std::fs::metadata(model().join("model.safetensors")).unwrap().len());
        let bytes: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        assert!(bytes > 0 && (bytes as u64) < facts.weight_bytes);
        assert!(tensors.iter().any(|tensor| tensor.name.contains("multi_modal_projector")));
    }

    #[test]
    fn what_is_missing_or_hostile_is_named() {
        let says = |harm: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.json"), "{}").unwrap();
            std::fs::write(dir.path().join("model.safetensors"), [0xff; 64]).unwrap();
            harm(dir.path());
            facts(dir.path()).unwrap_err().to_string()
        };
        assert!(facts(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
        assert!(says(&|dir| std::fs::remove_file(dir.join("config.json")).unwrap()).contains("config.json"));
        assert!(
            says(&|dir| std::fs::remove_file(dir.join("model.safetensors")).unwrap()).contains("model.safetensors")
        );
        assert!(says(&|_| ()).contains("announce"));
        let sparse = says(&|dir| File::create(dir.join("config.json")).unwrap().set_len(5 << 20).unwrap());
        assert!(sparse.contains("config.json") && sparse.contains("4194304"), "{sparse}");
        let climbing = r#"{"weight_map": {"a": "../../etc/passwd"}}"#;
        let says = says(&|dir| std::fs::write(dir.join("model.safetensors.index.json"), climbing).unwrap());
        assert!(says.contains("not a plain file name"), "{says}");
    }
}

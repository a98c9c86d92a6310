//! One weight file: mapped into memory, and what lies where in it.

use std::fs::File;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use vlm_hub::index::Kind;

use super::stored::{Fault, Stored};
use super::{CheckpointError, safetensors, torch};

/// A mapped file.
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
}

impl Shard {
    /// Maps the file and finds its tensors.
    pub fn open(path: PathBuf, kind: Kind) -> Result<(Self, Vec<(String, Stored)>), CheckpointError> {
        let shard = Self::map(path)?;
        if shard.map.starts_with(b"version https://git-lfs") {
            let reason = "it is Git LFS's note about the file, not the file; fetch it with git lfs pull";
            return Err(CheckpointError::weights(&shard.path, &reason));
        }
        let tensors = match kind {
            Kind::Safetensors => safetensors::tensors(&shard.map),
            Kind::Torch => torch::tensors(&shard.map),
        };
        match tensors {
            Ok(tensors) => Ok((shard, tensors)),
            Err(Fault::Malformed(reason)) => Err(CheckpointError::weights(&shard.path, &reason)),
            Err(Fault::Unsupported(what)) => Err(CheckpointError::WeightFormat { path: shard.path, what }),
        }
    }

    #[expect(unsafe_code, reason = "maps the weight file; it must not be truncated while the server runs")]
    fn map(path: PathBuf) -> Result<Self, CheckpointError> {
        let meta = std::fs::metadata(&path).map_err(|e| CheckpointError::not_found(&path, e))?;
        if !meta.is_file() {
            return Err(CheckpointError::weights(&path, &"it is not a regular file"));
        }
        if meta.len() == 0 {
            return Err(CheckpointError::weights(&path, &"it is empty"));
        }
        let file = File::open(&path).map_err(|e| CheckpointError::not_found(&path, e))?;
        let map = unsafe { Mmap::map(&file) }.map_err(|e| CheckpointError::not_found(&path, e))?;
        Ok(Self { path, map })
    }

    /// The file's name without its folders.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A tensor of this file.
    pub fn tensor(&self, stored: &Stored, dtype: DType, device: &Device) -> Result<Tensor, CheckpointError> {
        stored.tensor(&self.map, dtype, device).map_err(|e| CheckpointError::weights(&self.path, &e))
    }
}

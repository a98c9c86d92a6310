//! Weight files: one `model.safetensors` or the shards of an index, mapped, and tensors out of
//! them by name and expected shape.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::{CheckpointError, read_json};

/// The mapped files and which of them holds a tensor.
pub struct Weights {
    shards: Vec<Shard>,
    shard_of: HashMap<String, usize>,
}

struct Shard {
    path: PathBuf,
    tensors: MmapedSafetensors,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weight files of `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if let Some(index) = read_json::<Index>(&dir.join("model.safetensors.index.json"))? {
            return Self::open_shards(dir, &index);
        }
        let path = dir.join("model.safetensors");
        if !path.exists() {
            return Err(CheckpointError::NoWeights { dir: dir.to_owned() });
        }
        let shard = Shard::open(path)?;
        let shard_of = shard.tensors.tensors().into_iter().map(|(name, _)| (name, 0)).collect();
        Ok(Self { shards: vec![shard], shard_of })
    }

    fn open_shards(dir: &Path, index: &Index) -> Result<Self, CheckpointError> {
        let mut weights = Self { shards: Vec::new(), shard_of: HashMap::new() };
        let mut opened: HashMap<&str, usize> = HashMap::new();
        for (tensor, file) in &index.weight_map {
            if file.is_empty() || file.contains(['/', '\\', '\0']) || file.contains("..") {
                return Err(CheckpointError::UnsafePath { tensor: tensor.clone(), file: file.clone() });
            }
            let shard = if let Some(shard) = opened.get(file.as_str()) {
                *shard
            } else {
                weights.shards.push(Shard::open(dir.join(file))?);
                opened.insert(file, weights.shards.len() - 1);
                weights.shards.len() - 1
            };
            weights.shard_of.insert(tensor.clone(), shard);
        }
        Ok(weights)
    }

    /// Whether a tensor of this name is stored.
    pub fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(name)
    }

    /// The shape of the tensor `name`; `None` when it is not stored.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shard = self.shards.get(*self.shard_of.get(name)?)?;
        Some(shard.tensors.get(name).ok()?.shape().to_vec())
    }

    /// The tensor `name` in the number format in which it is stored, on `device`.
    ///
    /// # Errors
    /// When it is missing, or has another shape or an unknown number format.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.to_owned() };
        let shard = self.shard_of.get(name).and_then(|i| self.shards.get(*i)).ok_or_else(missing)?;
        let view = shard.tensors.get(name).map_err(|_| missing())?;
        if view.shape() != shape {
            return Err(CheckpointError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                actual: view.shape().to_vec(),
            });
        }
        let dtype = view.dtype();
        if !matches!(DType::try_from(dtype), Ok(DType::F16 | DType::BF16 | DType::F32)) {
            return Err(CheckpointError::Dtype { name: name.to_owned(), dtype: format!("{dtype:?}") });
        }
        shard.tensors.load(name, device).map_err(|e| malformed(&shard.path, &e))
    }

    /// Tensors whose names start with `prefix`.
    pub fn at(&self, prefix: &str) -> Tensors<'_> {
        Tensors { weights: self, prefix: prefix.to_owned(), device: Device::Cpu }
    }
}

impl Shard {
    #[expect(unsafe_code, reason = "maps the weight file; it must not be truncated while the server runs")]
    fn open(path: PathBuf) -> Result<Self, CheckpointError> {
        let file = std::fs::metadata(&path).map_err(|e| CheckpointError::not_found(&path, e))?;
        if !file.is_file() || file.len() == 0 {
            return Err(malformed(&path, &"it is empty or not a file"));
        }
        let tensors = unsafe { MmapedSafetensors::new(&path) }.map_err(|e| malformed(&path, &e))?;
        Ok(Self { path, tensors })
    }
}

fn malformed(path: &Path, reason: &impl Display) -> CheckpointError {
    CheckpointError::Weights { path: path.to_owned(), reason: reason.to_string() }
}

/// A place among the tensor names, so that a model's code reads like its checkpoint.
#[derive(Clone)]
pub struct Tensors<'a> {
    weights: &'a Weights,
    prefix: String,
    device: Device,
}

impl Tensors<'_> {
    /// The place `part` below this one.
    #[must_use]
    pub fn at(&self, part: impl Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}{part}.", self.prefix), device: self.device.clone() }
    }

    /// The tensor `name` of `shape` as f32.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        self.stored(name, shape)?.to_dtype(DType::F32).map_err(|e| CheckpointError::Start(e.to_string()))
    }

    /// The tensor `name` of `shape` in the number format in which it is stored.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        self.weights.tensor(&self.name(name), shape, &self.device)
    }

    /// The full name of the tensor `name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

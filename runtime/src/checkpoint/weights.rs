//! All weight files of a checkpoint as one set of names: tensors out of them by name and expected shape, and
//! which of them nobody asked for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use vlm_hub::index::Kind;

use super::CheckpointError;
use super::LoadProgress;
use super::drawn::Drawn;
use super::index::{self, Found};
use super::shard::Shard;
use super::stored::Stored;

/// The mapped files and where in them each tensor is.
#[derive(Default)]
pub struct Weights {
    shards: Vec<Shard>,
    places: HashMap<String, Place>,
    /// Draws every tensor that is asked for, in the place of files.
    drawn: Option<Drawn>,
    progress: Option<Arc<LoadProgress>>,
}

struct Place {
    shard: usize,
    stored: Stored,
    read: AtomicBool,
}

impl Weights {
    /// Maps the weight files of `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        let (name, index, kind) = match index::find(dir)? {
            Found::Single(file, kind) => {
                weights.add(dir, file, kind)?;
                return Ok(weights);
            }
            Found::Index(name, index, kind) => (name, index, kind),
        };
        for file in index.files() {
            weights.add(dir, file, kind)?;
        }
        for (tensor, file) in index.weight_map {
            let shard = weights.places.get(&tensor).and_then(|place| weights.shards.get(place.shard));
            if shard.is_none_or(|shard| shard.name() != file) {
                return Err(CheckpointError::IndexMismatch { index: name, tensor, file });
            }
        }
        Ok(weights)
    }

    /// Tensors of any name and shape, drawn when they are asked for.
    pub(super) fn drawn(drawn: Drawn) -> Self {
        Self { drawn: Some(drawn), ..Self::default() }
    }

    /// Tells `progress` of every tensor that is read for the first time from now on.
    pub(super) fn report_to(&mut self, progress: Option<Arc<LoadProgress>>) {
        if let Some(progress) = &progress {
            progress.begin(self.places.values().map(|place| place.stored.bytes.len() as u64).sum());
        }
        self.progress = progress;
    }

    fn add(&mut self, dir: &Path, file: &str, kind: Kind) -> Result<(), CheckpointError> {
        let (shard, tensors) = Shard::open(dir.join(file), kind)?;
        self.shards.push(shard);
        let shard = self.shards.len() - 1;
        for (name, stored) in tensors {
            self.put(name, Place { shard, stored, read: AtomicBool::new(false) })?;
        }
        Ok(())
    }

    fn put(&mut self, name: String, place: Place) -> Result<(), CheckpointError> {
        match self.places.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                Ok(())
            }
            Entry::Occupied(taken) => {
                let file = |place: &Place| self.shards.get(place.shard).map(Shard::name).unwrap_or_default();
                let files = [file(taken.get()), file(&place)];
                Err(CheckpointError::TwiceStored { name: taken.key().clone(), files })
            }
        }
    }

    /// Takes in the tensors of `other` under the names that `rename` gives them; those without one are left out.
    pub(super) fn join(&mut self, other: Self, rename: impl Fn(&str) -> Option<String>) -> Result<(), CheckpointError> {
        let first = self.shards.len();
        self.shards.extend(other.shards);
        for (name, place) in other.places {
            if let Some(name) = rename(&name) {
                self.put(name, Place { shard: first + place.shard, ..place })?;
            }
        }
        Ok(())
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is stored.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The shape of the tensor `name`; `None` when it is not stored.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.places.get(name).map(|place| place.stored.shape.clone())
    }

    /// The number format of the tensor `name`; `None` when it is not stored or not in a format that is read.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        if let Some(drawn) = &self.drawn {
            return Some(drawn.dtype);
        }
        let dtype = DType::try_from(self.places.get(name)?.stored.dtype).ok()?;
        matches!(dtype, DType::F16 | DType::BF16 | DType::F32).then_some(dtype)
    }

    /// The tensor `name` in the number format in which it is stored, on `device`.
    ///
    /// # Errors
    /// When it is missing, or has another shape or a number format that is not read.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, CheckpointError> {
        if let Some(drawn) = &self.drawn {
            return drawn.tensor(name, shape).map_err(|e| CheckpointError::Start(e.to_string()));
        }
        let found = self.places.get(name).and_then(|place| Some((place, self.shards.get(place.shard)?)));
        let Some((place, shard)) = found else {
            return Err(CheckpointError::MissingTensor { name: name.to_owned(), expected: shape.to_vec() });
        };
        let Stored { shape: actual, dtype, .. } = &place.stored;
        if actual != shape {
            return Err(CheckpointError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                actual: actual.clone(),
            });
        }
        let Some(dtype) = self.dtype(name) else {
            return Err(CheckpointError::Dtype { name: name.to_owned(), dtype: dtype.to_string() });
        };
        let tensor = shard.tensor(&place.stored, dtype, device);
        let again = place.read.swap(true, Ordering::Relaxed);
        if let Some(progress) = self.progress.as_ref().filter(|_| !again) {
            progress.add(place.stored.bytes.len() as u64);
        }
        tensor
    }

    /// Names and shapes of the tensors that [`Self::tensor`] has not given yet, in the order of their names.
    pub fn unread(&self) -> Vec<(&str, &[usize])> {
        let unread = self.places.iter().filter(|(_, place)| !place.read.load(Ordering::Relaxed));
        let mut unread: Vec<_> = unread.map(|(name, place)| (name.as_str(), place.stored.shape.as_slice())).collect();
        unread.sort_unstable();
        unread
    }

    /// Tensors whose names start with `prefix`.
    pub fn at(&self, prefix: &str) -> Tensors<'_> {
        let device = self.drawn.as_ref().map_or(Device::Cpu, |drawn| drawn.device.clone());
        Tensors { weights: self, prefix: prefix.to_owned(), device }
    }
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

    /// The standard deviation of linear layers' weights and a seed that belongs to the tensor `name`, where tensors are
    /// drawn.
    pub fn drawn(&self, name: &str) -> Option<(f32, u64)> {
        self.weights.drawn.as_ref().map(|_| Drawn::spread_and_seed(&self.name(name)))
    }

    /// Where the tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The full name of the tensor `name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

//! A checkpoint directory: configuration, layout of the weights, typed tensors. Reads files and
//! says precisely what is wrong with them; computes nothing.

mod cursor;
mod drawn;
mod error;
mod files;
mod index;
mod layout;
mod original_tower;
mod pickle;
mod progress;
mod safetensors;
mod shard;
mod stored;
mod torch;
mod unread;
mod weights;
mod zip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use serde::de::DeserializeOwned;
use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::architecture::{Dialect, Family, ModelConfig, describe};

pub use error::CheckpointError;
use files::{read, read_json};
pub use layout::{
    DecoderLayer, DecoderTensors, Layout, LinearTensors, NormTensors, ProjectorTensors, TowerLayer, TowerTensors,
};
use original_tower::Search;
pub use progress::LoadProgress;
pub use weights::{Tensors, Weights};

const CONFIG: &str = "config.json";

/// How to open a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The folder of the vision tower, for weights of the original LLaVA that lack it. `None` looks for it beside
    /// the weights.
    pub vision_tower: Option<PathBuf>,
    /// Told of every tensor that is read.
    pub progress: Option<Arc<LoadProgress>>,
}

/// An opened checkpoint. Weights are mapped and their names known, but not yet read.
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    weights: Weights,
    layout: Layout,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`.
    ///
    /// # Errors
    /// A missing directory or file, a malformed file, or a model that is not served.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        Self::open_with(dir, &OpenOptions::default())
    }

    /// Opens the checkpoint in `dir` as `options` say.
    ///
    /// # Errors
    /// As [`Self::open`], and options that contradict the checkpoint.
    pub fn open_with(dir: &Path, options: &OpenOptions) -> Result<Self, CheckpointError> {
        std::fs::read_dir(dir).map_err(|source| CheckpointError::not_found(dir, source))?;
        let (raw, mut config) = Self::describe(&dir.join(CONFIG))?;
        let mut weights = Weights::open(dir)?;
        let layout = Layout::probe(|name| weights.contains(name)).ok_or(CheckpointError::UnknownLayout)?;
        if config.dialect == Dialect::Original && config.family != Family::InternVl {
            let (given, tower) = (options.vision_tower.as_deref(), raw.mm_vision_tower.as_deref());
            let search = Search { dir, given, tower };
            if let Some(vision) = original_tower::find(&mut weights, layout.tower(), &raw, &search)? {
                config.vision = vision;
            }
        } else if options.vision_tower.is_some() {
            let reason = "--vision-tower is only for the original LLaVA, whose weights may lack the tower";
            return Err(CheckpointError::Options(reason.to_owned()));
        }
        weights.report_to(options.progress.clone());
        Ok(Self { dir: dir.to_owned(), config, weights, layout })
    }

    /// The `config.json` at `path`, as it is and as what it describes.
    fn describe(path: &Path) -> Result<(RawConfig, ModelConfig), CheckpointError> {
        let raw: RawConfig =
            read_json(path)?.ok_or_else(|| CheckpointError::not_found(path, std::io::ErrorKind::NotFound.into()))?;
        let config = describe(&raw)?;
        Ok((raw, config))
    }

    /// What `config.json` describes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tensors by the names of the file.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Where each part's tensors are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number format in which the decoder is stored.
    pub fn stored(&self) -> DType {
        let names = self.decoder().embedding().names();
        names.first().and_then(|name| self.weights.dtype(name)).unwrap_or(DType::F32)
    }

    /// Path of a file of the checkpoint.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A JSON file of the checkpoint; `None` when it does not exist.
    ///
    /// # Errors
    /// [`CheckpointError::Json`] when it does not parse as `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CheckpointError> {
        read_json(&self.dir.join(name))
    }

    /// A text file of the checkpoint; `None` when it does not exist.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, CheckpointError> {
        let path = self.dir.join(name);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|e| CheckpointError::json(&path, &e))?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests;

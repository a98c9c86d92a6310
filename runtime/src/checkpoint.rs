//! A checkpoint directory: configuration, layout of the weights, typed tensors. Reads files and
//! says precisely what is wrong with them; computes nothing.

mod error;
mod layout;
mod weights;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::architecture::{Dialect, Family, ModelConfig, TowerShapes, describe, tower_from_tensors};

pub use error::CheckpointError;
pub use layout::{
    DecoderLayer, DecoderTensors, Layout, LinearTensors, NormTensors, ProjectorTensors, TowerLayer, TowerTensors,
};
pub use weights::{Tensors, Weights};

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
        std::fs::read_dir(dir).map_err(|source| CheckpointError::not_found(dir, source))?;
        let path = dir.join("config.json");
        let raw: RawConfig =
            read_json(&path)?.ok_or_else(|| CheckpointError::not_found(&path, std::io::ErrorKind::NotFound.into()))?;
        let mut config = describe(&raw)?;
        let weights = Weights::open(dir)?;
        let layout = Layout::probe(|name| weights.contains(name)).ok_or(CheckpointError::UnknownLayout)?;
        // The original LLaVA says nothing of its tower but the name.
        if config.dialect == Dialect::Original && config.family != Family::InternVl {
            if let Some(shapes) = tower_shapes(&weights, layout.tower()) {
                let found = tower_from_tensors(&raw, &shapes, None)?;
                if found.heads_guessed {
                    let heads = found.config.heads;
                    tracing::warn!(heads, "no file gives the vision tower's attention heads: taken from the decoder");
                }
                config.vision = found.config;
            }
        }
        Ok(Self { dir: dir.to_owned(), config, weights, layout })
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

/// Shapes of the CLIP tower whose tensors start with `prefix`; `None` when it is not stored.
fn tower_shapes(weights: &Weights, prefix: &str) -> Option<TowerShapes> {
    let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
    let stored = |n: &usize| weights.contains(&format!("{prefix}encoder.layers.{n}.mlp.fc1.weight"));
    Some(TowerShapes {
        class: shape("embeddings.class_embedding")?,
        patches: shape("embeddings.patch_embedding.weight")?,
        positions: shape("embeddings.position_embedding.weight")?,
        fc1: shape("encoder.layers.0.mlp.fc1.weight")?,
        layers: (0..).take_while(stored).count(),
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CheckpointError::not_found(path, error)),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| CheckpointError::json(path, &e))?;
    json.end().map_err(|e| CheckpointError::json(path, &e))?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests;

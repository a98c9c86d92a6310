//! The file that says which weight file has which tensor, and the order in which kinds of weight files win.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};

use super::shard::Kind;
use super::stored::MAX_NAME;
use super::{CheckpointError, read_json};

/// Index, single file, and their kind; the first that is there is read.
const FILES: [(&str, &str, Kind); 2] = [
    ("model.safetensors.index.json", "model.safetensors", Kind::Safetensors),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", Kind::Torch),
];

/// What a directory has of weights.
pub(super) enum Found {
    /// Shards, as the index of this name lists them.
    Index(&'static str, Index, Kind),
    /// One file.
    Single(&'static str, Kind),
}

/// Looks for weights in `dir`.
pub(super) fn find(dir: &Path) -> Result<Found, CheckpointError> {
    for (index, single, kind) in FILES {
        if let Some(listed) = read_json::<Index>(&dir.join(index))? {
            listed.check(index)?;
            return Ok(Found::Index(index, listed, kind));
        }
        // A link into nowhere is there, and opening it says so.
        if dir.join(single).symlink_metadata().is_ok() {
            return Ok(Found::Single(single, kind));
        }
    }
    Err(CheckpointError::NoWeights { dir: dir.to_owned() })
}

/// Tensors and the files that have them, as listed.
#[derive(Deserialize)]
pub(super) struct Index {
    #[serde(deserialize_with = "pairs")]
    pub weight_map: Vec<(String, String)>,
}

impl Index {
    /// The files, each once, in the order in which they are listed.
    pub fn files(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.weight_map.iter().map(|(_, file)| file.as_str()).filter(|file| seen.insert(*file)).collect()
    }

    /// That files are plain names, and no tensor is sent to two of them.
    fn check(&self, index: &'static str) -> Result<(), CheckpointError> {
        let mut listed: HashMap<&str, &str> = HashMap::new();
        for (tensor, file) in &self.weight_map {
            if tensor.len() > MAX_NAME || file.len() > MAX_NAME {
                let reason = format!("it has a name of {} bytes", tensor.len().max(file.len()));
                return Err(CheckpointError::json(Path::new(index), &reason));
            }
            if file.is_empty() || file.contains(['/', '\\', '\0']) || file.contains("..") {
                return Err(CheckpointError::UnsafePath { index, tensor: tensor.clone(), file: file.clone() });
            }
            if let Some(other) = listed.insert(tensor, file) {
                let files = [other.to_owned(), file.clone()];
                return Err(CheckpointError::TwiceStored { name: tensor.clone(), files });
            }
        }
        Ok(())
    }
}

fn pairs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    deserializer.deserialize_map(Pairs)
}

/// Keeps what a map would drop: a name that is listed twice.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        if pairs.is_empty() { Err(A::Error::custom("it names no tensors")) } else { Ok(pairs) }
    }
}

//! The file that says which weight file has which tensor, and the order in which kinds of weight files win.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};

use crate::header::MAX_NAME;

/// Bytes that an index or a configuration may have; the largest published have 100 thousand. What is made of them
/// may take 50 times as much memory.
pub const MAX_BYTES: u64 = 4 << 20;

/// Kinds of weight files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A header of JSON, then tensors.
    Safetensors,
    /// What `torch.save` writes.
    Torch,
}

/// Names that weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The index of shards.
    pub index: &'static str,
    /// The file without shards.
    pub single: &'static str,
    /// What they are.
    pub kind: Kind,
}

/// The first that is there is read, of each an index before a single file.
pub const CANDIDATES: [Candidate; 2] = [
    Candidate { index: "model.safetensors.index.json", single: "model.safetensors", kind: Kind::Safetensors },
    Candidate { index: "pytorch_model.bin.index.json", single: "pytorch_model.bin", kind: Kind::Torch },
];

/// Why an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It does not parse, or has names of absurd length.
    #[error("{0}")]
    Malformed(String),
    /// It sends a tensor to a file outside the checkpoint.
    #[error("it sends {tensor} to {file:?}, which is not a plain file name")]
    UnsafePath {
        /// The tensor.
        tensor: String,
        /// The value.
        file: String,
    },
    /// It sends a tensor to two files.
    #[error("the tensor {name} is stored twice, in {} and {}", files[0], files[1])]
    Twice {
        /// The tensor.
        name: String,
        /// The files.
        files: [String; 2],
    },
}

/// Tensors and the files that have them, as listed.
#[derive(Debug, Deserialize)]
pub struct Index {
    /// Tensor and file.
    #[serde(deserialize_with = "pairs")]
    pub weight_map: Vec<(String, String)>,
}

impl Index {
    /// Reads an index; files are plain names, and no tensor is sent to two of them.
    ///
    /// # Errors
    /// When that does not hold, or it does not parse.
    pub fn parse(json: &[u8]) -> Result<Self, IndexError> {
        let malformed = |e: &dyn fmt::Display| IndexError::Malformed(e.to_string());
        let mut reader = serde_json::Deserializer::from_slice(json);
        let index: Self = serde_path_to_error::deserialize(&mut reader).map_err(|e| malformed(&e))?;
        reader.end().map_err(|e| malformed(&e))?;
        index.check()?;
        Ok(index)
    }

    /// The files, each once, in the order in which they are listed.
    pub fn files(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.weight_map.iter().map(|(_, file)| file.as_str()).filter(|file| seen.insert(*file)).collect()
    }

    fn check(&self) -> Result<(), IndexError> {
        let mut listed: HashMap<&str, &str> = HashMap::new();
        for (tensor, file) in &self.weight_map {
            if tensor.len() > MAX_NAME || file.len() > MAX_NAME {
                let reason = format!("it has a name of {} bytes", tensor.len().max(file.len()));
                return Err(IndexError::Malformed(reason));
            }
            if file.is_empty() || file.contains(['/', '\\', '\0']) || file.contains("..") {
                return Err(IndexError::UnsafePath { tensor: tensor.clone(), file: file.clone() });
            }
            if let Some(other) = listed.insert(tensor, file) {
                let files = [other.to_owned(), file.clone()];
                return Err(IndexError::Twice { name: tensor.clone(), files });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_once_each_and_in_order() {
        let index = Index::parse(br#"{"metadata": {}, "weight_map": {"a": "2.x", "b": "1.x", "c": "2.x"}}"#).unwrap();
        assert_eq!(index.files(), ["2.x", "1.x"]);
    }

    #[test]
    fn a_path_a_second_place_and_nothing_at_all_are_refused() {
        for file in ["../x", "a/b", "/etc/passwd", "a\\\\b", ""] {
            let json = format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#);
            assert!(matches!(Index::parse(json.as_bytes()), Err(IndexError::UnsafePath { .. })), "{file}");
        }
        let twice = Index::parse(br#"{"weight_map": {"a": "1", "a": "2"}}"#).unwrap_err();
        assert!(matches!(twice, IndexError::Twice { .. }), "{twice}");
        let empty = Index::parse(br#"{"weight_map": {}}"#).unwrap_err();
        assert!(empty.to_string().contains("weight_map"), "{empty}");
    }
}

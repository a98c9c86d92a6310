//! What a look at a checkpoint tells whoever plans where it fits: its description and the shapes of its tensors. It
//! travels as the termination message of a pod, which holds 4096 bytes, and is kept in the status of its object.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::architecture::raw::RawConfig;
use crate::architecture::{ArchitectureError, ModelConfig, Tiling, describe};
use crate::checkpoint::{CheckpointSize, Head, StoredError, Tensors, group};

/// Bytes that an inspection has at most: what Kubernetes keeps of a termination message.
pub const MAX_BYTES: usize = 4096;

/// What is known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Unchecked")]
pub struct Inspection {
    /// The commit, of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    /// The model, without what says nothing of its size and may be long.
    config: ModelConfig,
    /// Bytes of all weight files.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_bytes: Option<u64>,
    /// What the headers list; absent where there are no weights, or files of a kind that has no header.
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<Tensors>>,
    #[serde(skip)]
    size: CheckpointSize,
}

/// An inspection as it was read, of whatever origin.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unchecked {
    revision: Option<String>,
    config: ModelConfig,
    weight_bytes: Option<u64>,
    tensors: Option<Vec<Tensors>>,
}

/// Why a checkpoint is none that can be served; without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectionError {
    /// The model is of a kind that is not served.
    Architecture(ArchitectureError),
    /// The tensors are not those of the model.
    Stored(StoredError),
    /// A number is outside of what any model has. Only of an inspection that was changed on its way.
    OutOfRange(&'static str),
}

impl fmt::Display for InspectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Architecture(error) => error.fmt(f),
            Self::Stored(error) => error.fmt(f),
            Self::OutOfRange(field) => write!(f, "{field} is outside of what any model has"),
        }
    }
}

impl std::error::Error for InspectionError {}

impl From<ArchitectureError> for InspectionError {
    fn from(error: ArchitectureError) -> Self {
        Self::Architecture(error)
    }
}

impl From<StoredError> for InspectionError {
    fn from(error: StoredError) -> Self {
        Self::Stored(error)
    }
}

/// What was found beside `config.json`.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// The commit, of a repository.
    pub revision: Option<String>,
    /// Bytes of all weight files; `None` when there are none.
    pub weight_bytes: Option<u64>,
    /// Name and shape of each tensor; `None` where no header lists them.
    pub tensors: Option<T>,
}

impl Inspection {
    /// Of the model that `raw` describes, and its tensors.
    ///
    /// # Errors
    /// When it is of a kind that is not served, or the tensors are not its own.
    pub fn new<'a, T>(raw: &RawConfig, found: Found<T>) -> Result<Self, InspectionError>
    where
        T: IntoIterator<Item = (&'a str, &'a [usize])>,
    {
        let mut config = describe(raw)?;
        // They say nothing of its size and may be long.
        config.text.long_rope = None;
        config.template = None;
        config.system_message = None;
        let tensors = found.tensors.map(group).transpose()?;
        let Found { revision, weight_bytes, .. } = found;
        Self::try_from(Unchecked { revision, config, weight_bytes, tensors })
    }

    /// The commit, of a repository.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The model, without factors of its rotary positions, the name of its template and its system message.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its tensors: as the headers of its files list them, or as described where they have none.
    pub fn size(&self) -> &CheckpointSize {
        &self.size
    }

    /// Whether the sizes are those of the headers.
    pub fn is_exact(&self) -> bool {
        self.tensors.is_some()
    }

    /// Bytes of all weight files; `None` when there are none.
    pub fn weight_bytes(&self) -> Option<u64> {
        self.weight_bytes
    }
}

impl TryFrom<Unchecked> for Inspection {
    type Error = InspectionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, InspectionError> {
        let Unchecked { revision, config, weight_bytes, tensors } = unchecked;
        if let Some((field, ..)) = ranges(&config).into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Err(InspectionError::OutOfRange(field));
        }
        let size = match &tensors {
            Some(tensors) => CheckpointSize::of_tensors(&config, tensors.clone())?,
            None => CheckpointSize::of(&config, Head::Stored),
        };
        Ok(Self { revision, config, weight_bytes, tensors, size })
    }
}

/// The numbers that sizes are reckoned from, each with the most that it may be: those of [`describe`], or more. What
/// is written with them cannot overflow.
fn ranges(config: &ModelConfig) -> Vec<(&'static str, usize, usize)> {
    let (text, vision) = (&config.text, &config.vision);
    let (pictures, most) = match &config.tiling {
        Tiling::One { .. } => (1, 1),
        Tiling::AnyRes { pinpoints } => (pinpoints.len(), 64),
        Tiling::Dynamic { max, .. } => (*max as usize, 63),
    };
    vec![
        ("text.vocab_size", text.vocab_size, 1 << 22),
        ("text.hidden_size", text.hidden_size, 1 << 16),
        ("text.intermediate_size", text.intermediate_size, 1 << 20),
        ("text.layers", text.layers, 1 << 10),
        ("text.heads", text.heads, 1 << 12),
        ("text.kv_heads", text.kv_heads, text.heads),
        ("text.head_dim", text.head_dim, 1 << 10),
        ("text.max_positions", text.max_positions, 1 << 22),
        ("vision.hidden_size", vision.hidden_size, 1 << 14),
        ("vision.intermediate_size", vision.intermediate_size, 1 << 18),
        ("vision.layers", vision.layers, 1 << 10),
        ("vision.heads", vision.heads, 1 << 10),
        ("vision.image_size", vision.image_size, 1 << 12),
        ("vision.patch_size", vision.patch_size, vision.image_size),
        ("vision.shuffle", vision.shuffle, vision.image_size / vision.patch_size.max(1)),
        ("tiling", pictures, most),
    ]
}

#[cfg(test)]
mod tests;

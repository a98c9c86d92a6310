//! Everything that can be wrong with a checkpoint, and which row of the diagnosis table it is.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vlm_catalog::architecture::ArchitectureError;
use vlm_contract::diagnosis::Cause;

/// Why a checkpoint cannot be served: what is wrong, without a full stop.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A directory or file that must be there is missing or unreadable.
    #[error("{}: {source}", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No file that could hold weights.
    #[error("{} holds neither model.safetensors.index.json nor model.safetensors", dir.display())]
    NoWeights {
        /// The checkpoint directory.
        dir: PathBuf,
    },
    /// Neither tokenizer file.
    #[error(
        "{} holds neither tokenizer.json nor tokenizer.model; put the one that the model was published with beside config.json",
        dir.display()
    )]
    NoTokenizer {
        /// The checkpoint directory.
        dir: PathBuf,
    },
    /// The tokenizer is not that of a model that sees.
    #[error(
        "the tokenizer lacks {missing}, which stand for pictures in a prompt; put the tokenizer files that the model \
         was published with beside config.json"
    )]
    NoImageTokens {
        /// The tokens.
        missing: String,
    },
    /// A small file does not parse.
    #[error("{} is malformed: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The model is not served.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// Tensor names follow no known layout.
    #[error(
        "the weights have none of the known layouts (supported: llava-hf and InternVL -hf names, with \
         multi_modal_projector.linear_1.weight; original LLaVA names, with model.mm_projector.0.weight; InternVL chat \
         names, with mlp1.0.weight)"
    )]
    UnknownLayout,
    /// A feature of tokenizer, template or preprocessing that is not served.
    #[error("{file} asks for {what}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The file.
        file: &'static str,
        /// What it says.
        what: String,
        /// What is served.
        supported: &'static str,
    },
    /// A weight file cannot be mapped or its header is wrong.
    #[error("{} is truncated or malformed: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The index sends a tensor to a file outside the checkpoint.
    #[error("model.safetensors.index.json sends {tensor} to {file:?}, which is not a plain file name")]
    UnsafePath {
        /// The tensor.
        tensor: String,
        /// The value.
        file: String,
    },
    /// A tensor that the model needs is missing.
    #[error("the weights lack the tensor {name}")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("the tensor {name} has the shape {actual:?}, but config.json makes it {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// From the configuration.
        expected: Vec<usize>,
        /// From the file.
        actual: Vec<usize>,
    },
    /// A tensor is stored in a number format that is not read.
    #[error("the tensor {name} is stored as {dtype} (supported: F16, BF16, F32)")]
    Dtype {
        /// Its name.
        name: String,
        /// Its format.
        dtype: String,
    },
    /// The weights make the model compute nonsense.
    #[error("the weights make numbers that are not finite")]
    NotFinite,
    /// An option contradicts the checkpoint.
    #[error("{0}")]
    Options(String),
    /// The model could not be built or did not survive warm-up.
    #[error("the model does not run: {0}")]
    Start(String),
}

impl CheckpointError {
    pub(crate) fn not_found(path: &Path, source: std::io::Error) -> Self {
        Self::NotFound { path: path.to_owned(), source }
    }

    pub(crate) fn json(path: &Path, reason: &impl Display) -> Self {
        Self::Json { path: path.to_owned(), reason: reason.to_string() }
    }

    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotFound { .. } | Self::NoWeights { .. } | Self::NoTokenizer { .. } => Cause::ModelNotFound,
            Self::Architecture(_)
            | Self::UnknownLayout
            | Self::NoImageTokens { .. }
            | Self::Unsupported { .. }
            | Self::Dtype { .. } => Cause::UnsupportedArchitecture,
            Self::Json { .. }
            | Self::Weights { .. }
            | Self::UnsafePath { .. }
            | Self::MissingTensor { .. }
            | Self::Shape { .. }
            | Self::NotFinite => Cause::WeightsCorrupt,
            Self::Options(_) => Cause::InvalidArguments,
            Self::Start(_) => Cause::StartFailed,
        }
    }
}

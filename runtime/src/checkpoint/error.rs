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
    #[error(
        "{} holds none of model.safetensors.index.json, model.safetensors, pytorch_model.bin.index.json and \
         pytorch_model.bin",
        dir.display()
    )]
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
    /// A weight file is of a kind that is not read.
    #[error(
        "{} is not read: {what} (supported: safetensors, and what torch.save makes of a state dict since torch 1.6)",
        path.display()
    )]
    WeightFormat {
        /// The file.
        path: PathBuf,
        /// What about it.
        what: String,
    },
    /// The index sends a tensor to a file outside the checkpoint.
    #[error("{index} sends {tensor} to {file:?}, which is not a plain file name")]
    UnsafePath {
        /// The index.
        index: &'static str,
        /// The tensor.
        tensor: String,
        /// The value.
        file: String,
    },
    /// The index sends a tensor to a file that does not have it.
    #[error("{index} says that {tensor} is in {file}, but it is not")]
    IndexMismatch {
        /// The index.
        index: &'static str,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// Two places for one tensor.
    #[error("the tensor {name} is stored twice, in {} and {}", files[0], files[1])]
    TwiceStored {
        /// Its name.
        name: String,
        /// The files.
        files: [String; 2],
    },
    /// A tensor that the model needs is missing.
    #[error("the weights lack the tensor {name} of shape {expected:?}")]
    MissingTensor {
        /// Its name.
        name: String,
        /// From the configuration.
        expected: Vec<usize>,
    },
    /// A tensor that the model does not have.
    #[error(
        "the weights hold the tensor {name} of shape {shape:?}{}, of which the model that config.json describes has \
         none; the weights are of another model, for example of one with more layers",
        if *others == 0 { String::new() } else { format!(" and {others} others") }
    )]
    ExtraTensor {
        /// Its name.
        name: String,
        /// From the file.
        shape: Vec<usize>,
        /// How many more there are.
        others: usize,
    },
    /// The vision tower is neither in the weights nor beside them.
    #[error(
        "the weights hold no vision tower, and there is none in {}; fetch {tower} (config.json and weights) and put it \
         into the first of these folders, or name its folder with --vision-tower",
        tried.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoVisionTower {
        /// What the configuration calls it.
        tower: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The folder of a vision tower holds something else.
    #[error("{} holds no CLIP vision tower: {what}", dir.display())]
    VisionTower {
        /// The folder.
        dir: PathBuf,
        /// What about it.
        what: String,
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
    /// A tensor holds infinities or no numbers.
    #[error("the tensor {name} holds numbers that are not finite")]
    NotFiniteTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has a number that the chosen number format cannot hold.
    #[error("the tensor {name} holds the number {value}, but {format} ends at {limit}; {mend}")]
    Range {
        /// Its name.
        name: String,
        /// The largest number.
        value: f32,
        /// The number format.
        format: String,
        /// The largest number of the format.
        limit: f32,
        /// What to choose instead.
        mend: &'static str,
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
        Self::Json { path: path.to_owned(), reason: shorten(&reason.to_string()) }
    }

    pub(crate) fn weights(path: &Path, reason: &impl Display) -> Self {
        Self::Weights { path: path.to_owned(), reason: shorten(&reason.to_string()) }
    }

    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotFound { .. } | Self::NoWeights { .. } | Self::NoTokenizer { .. } | Self::NoVisionTower { .. } => {
                Cause::ModelNotFound
            }
            Self::Architecture(_)
            | Self::UnknownLayout
            | Self::NoImageTokens { .. }
            | Self::Unsupported { .. }
            | Self::Dtype { .. }
            | Self::WeightFormat { .. }
            | Self::VisionTower { .. } => Cause::UnsupportedArchitecture,
            Self::Json { .. }
            | Self::Weights { .. }
            | Self::UnsafePath { .. }
            | Self::IndexMismatch { .. }
            | Self::TwiceStored { .. }
            | Self::MissingTensor { .. }
            | Self::ExtraTensor { .. }
            | Self::Shape { .. }
            | Self::NotFiniteTensor { .. }
            | Self::NotFinite => Cause::WeightsCorrupt,
            Self::Options(_) | Self::Range { .. } => Cause::InvalidArguments,
            Self::Start(_) => Cause::StartFailed,
        }
    }
}

/// What a parser says may quote the file at any length.
fn shorten(reason: &str) -> String {
    const CHARACTERS: usize = 400;
    match reason.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{} …", &reason[..end]),
        None => reason.to_owned(),
    }
}

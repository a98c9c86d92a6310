//! What is known of a checkpoint without its weights: its description, the sizes of its tensors, its licence; of a
//! directory or of a repository on the hub. What a checkpoint's files are is the crate hub's.

mod licence;
mod remote;

use std::io::ErrorKind;
use std::path::Path;

use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::inspection::{Found, Inspection, InspectionError};
use vlm_contract::diagnosis::Cause;
use vlm_contract::uri::{ModelUri, UriError};
use vlm_hub::header::TensorPlace;
use vlm_hub::{HubError, facts, needed, volume};

pub use remote::of_uri;

/// The model's card.
const CARD: &str = "README.md";

/// What is known of a checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its description and its tensors.
    pub inspection: Inspection,
    /// Its licence, as its card says.
    pub licence: Option<String>,
}

/// Why nothing is known; without a full stop.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file of a directory is missing, or not what its name says.
    #[error("{0}")]
    File(HubError),
    /// A repository cannot be read.
    #[error("{}", remote::said(.0))]
    Hub(HubError),
    /// The model is on a volume of the cluster.
    #[error(
        "{0} is on a volume of the cluster, which is not read from here; name a copy of its directory with --checkpoint"
    )]
    Claim(ModelUri),
    /// The model is nowhere.
    #[error("spec.model.uri: {0}")]
    Uri(UriError),
    /// It is none that can be served.
    #[error(transparent)]
    Inspection(#[from] InspectionError),
}

impl CheckpointError {
    /// The row of the diagnosis table.
    pub fn cause(&self) -> Cause {
        match self {
            Self::File(error) | Self::Hub(error) => error.cause(),
            Self::Claim(_) | Self::Uri(_) => Cause::InvalidArguments,
            Self::Inspection(InspectionError::Architecture(_)) => Cause::UnsupportedArchitecture,
            Self::Inspection(_) => Cause::WeightsCorrupt,
        }
    }
}

/// What files tell, whichever way they were read.
struct Read {
    config: Vec<u8>,
    tensors: Option<Vec<TensorPlace>>,
    weight_bytes: Option<u64>,
    revision: Option<String>,
    card: Option<Vec<u8>>,
}

/// Reads the checkpoint in `dir`: `config.json`, and of the weights and the card what is there.
///
/// # Errors
/// When `config.json` is missing or of a model that is not served, or a file is not what its name says.
pub fn of_directory(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    let (config, tensors, weight_bytes) = match volume::facts(dir) {
        Ok(facts) => (facts.config, facts.tensors, Some(facts.weight_bytes)),
        // A plan needs no weights: the description tells how large they are.
        Err(HubError::NoWeights { .. }) => {
            (volume::small(&dir.join(needed::CONFIG)).map_err(CheckpointError::File)?, None, None)
        }
        Err(error) => return Err(CheckpointError::File(error)),
    };
    let card = match volume::small(&dir.join(CARD)) {
        Ok(card) => Some(card),
        Err(HubError::Missing { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(CheckpointError::File(error)),
    };
    let found = Read { config, tensors, weight_bytes, revision: None, card };
    known(found, &dir.join(needed::CONFIG).display().to_string())
}

/// Describes what was found; `name` is that of its configuration.
fn known(found: Read, name: &str) -> Result<Checkpoint, CheckpointError> {
    let raw: RawConfig = facts::parse_config(&found.config, name).map_err(CheckpointError::File)?;
    let licence = found.card.as_deref().map(String::from_utf8_lossy).and_then(|card| licence::of_card(&card));
    let Read { revision, weight_bytes, tensors, .. } = found;
    let shapes = tensors.as_ref().map(|tensors| tensors.iter().map(|tensor| (&*tensor.name, &*tensor.shape)));
    let inspection = Inspection::new(&raw, Found { revision, weight_bytes, tensors: shapes })?;
    Ok(Checkpoint { inspection, licence })
}

#[cfg(test)]
mod tests;

//! What a checkpoint is made of, told without its weights: its configuration, and the tensors of its headers.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use vlm_contract::uri::Repository;

use crate::header::TensorPlace;
use crate::hf::{Hub, Place, RemoteFile};
use crate::index::{Candidate, Index, Kind, MAX_BYTES};
use crate::{HubError, needed};

/// Headers that are read at the same time.
const AT_ONCE: usize = 8;

/// What is known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The commit, of a repository; a directory has none.
    pub revision: Option<String>,
    /// `config.json` as it is.
    pub config: Vec<u8>,
    /// Bytes of all weight files.
    pub weight_bytes: u64,
    /// The tensors of all weight files, names unique; `None` of a kind whose files would have to be read whole.
    pub tensors: Option<Vec<TensorPlace>>,
}

impl Facts {
    /// Name and shape of each tensor; `None` of a kind whose files would have to be read whole.
    pub fn shapes(&self) -> Option<impl Iterator<Item = (&str, &[usize])>> {
        self.tensors.as_ref().map(|tensors| tensors.iter().map(|tensor| (&*tensor.name, &*tensor.shape)))
    }
}

/// What `config.json` says, which errors call `name`.
///
/// # Errors
/// [`HubError::Malformed`] with the path of the field.
pub fn parse_config<T: DeserializeOwned>(json: &[u8], name: &str) -> Result<T, HubError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let config = serde_path_to_error::deserialize(&mut reader).map_err(|e| HubError::malformed(name, e))?;
    reader.end().map_err(|e| HubError::malformed(name, e))?;
    Ok(config)
}

/// Of a repository at `commit`.
///
/// # Errors
/// When a file is missing, malformed or too large, or the hub does not answer.
pub async fn of_repository(hub: &Hub, repository: &Repository, commit: &str) -> Result<Facts, HubError> {
    let files = hub.files(repository, commit).await?;
    needed::beside(&files, &repository.to_string())?;
    let config = hub.read(Place { repository, commit, path: needed::CONFIG }, MAX_BYTES).await?;
    let (candidate, weights) = weights(hub, repository, commit, &files).await?;
    let weight_bytes = weights.iter().map(|file| file.size).sum();
    let tensors = match candidate.kind {
        Kind::Torch => None,
        Kind::Safetensors => Some(headers(hub, repository, commit, &weights).await?),
    };
    Ok(Facts { revision: Some(commit.to_owned()), config, weight_bytes, tensors })
}

async fn headers(
    hub: &Hub,
    repository: &Repository,
    commit: &str,
    weights: &[&RemoteFile],
) -> Result<Vec<TensorPlace>, HubError> {
    // Owned names: a future that borrows from the list could not cross threads.
    let files: Vec<(String, u64)> = weights.iter().map(|file| (file.name.clone(), file.size)).collect();
    let asked = files
        .into_iter()
        .map(|(path, size)| async move { hub.header(Place { repository, commit, path: &path }, size).await });
    let found: Vec<Vec<TensorPlace>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    unique(found, &repository.to_string())
}

/// All tensors as one list.
pub(crate) fn unique(found: Vec<Vec<TensorPlace>>, place: &str) -> Result<Vec<TensorPlace>, HubError> {
    let tensors: Vec<TensorPlace> = found.into_iter().flatten().collect();
    let mut names = BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(HubError::malformed(place, format!("the tensor {} is stored twice", twice.name)));
    }
    Ok(tensors)
}

/// The weight files of a commit, the index itself left out.
pub(crate) async fn weights<'a>(
    hub: &Hub,
    repository: &Repository,
    commit: &str,
    files: &'a [RemoteFile],
) -> Result<(Candidate, Vec<&'a RemoteFile>), HubError> {
    let listed = |name: &str| files.iter().find(|file| file.name == name);
    let (candidate, indexed) = needed::weights(|name| listed(name).is_some())
        .ok_or_else(|| HubError::NoWeights { place: format!("{repository} at {commit}") })?;
    if !indexed {
        return Ok((candidate, listed(candidate.single).into_iter().collect()));
    }
    let place = Place { repository, commit, path: candidate.index };
    let json = hub.read(place, MAX_BYTES).await?;
    let index = Index::parse(&json).map_err(|e| HubError::malformed(place.name(), e))?;
    // Else a list could give weights the name of a setting.
    let end = if candidate.kind == Kind::Torch { ".bin" } else { ".safetensors" };
    if let Some(file) = index.files().into_iter().find(|file| !file.ends_with(end)) {
        return Err(HubError::malformed(place.name(), format!("it lists {file:?}, which does not end in {end}")));
    }
    let shards = index.files().into_iter().map(|name| {
        let missing = || HubError::NotFound {
            what: format!("{name} of {repository}, which its {} lists", candidate.index),
            said: String::new(),
        };
        listed(name).ok_or_else(missing)
    });
    Ok((candidate, shards.collect::<Result<_, _>>()?))
}

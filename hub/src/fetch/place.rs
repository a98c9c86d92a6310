//! The directory of a checkpoint: who may write it, what it holds, and how it comes to be there at once.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::HubError;
use crate::hf::RemoteFile;

/// What a published directory is, for whoever comes later.
const MANIFEST: &str = "vlm-checkpoint.json";
/// Bytes of a manifest.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Manifest {
    repository: String,
    /// The commit.
    revision: String,
    /// The branch, tag or commit that was asked for.
    asked_for: String,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    name: String,
    size: u64,
}

/// A directory that nobody else fetches into as long as this lives.
pub(super) struct Directory {
    to: PathBuf,
    partial: PathBuf,
    _lock: File,
}

impl Directory {
    /// Waits until nobody else fetches into `to`.
    pub async fn lock(to: &Path) -> Result<Self, HubError> {
        let (Some(name), Some(parent)) = (to.file_name(), to.parent()) else {
            let source = std::io::Error::new(ErrorKind::InvalidInput, "it is no directory of a name of its own");
            return Err(HubError::write(to, source));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::create_dir_all(parent).map_err(|e| HubError::write(parent, e))?;
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            parent.join(name)
        };
        let path = beside(".lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|e| HubError::write(&path, e))?;
        let lock = if file.try_lock().is_ok() {
            file
        } else {
            tracing::info!(directory = %to.display(), "another process fetches into it; waiting");
            let waited = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
            let locked = waited.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            locked.map_err(|e| HubError::write(&path, e))?
        };
        Ok(Self { to: to.to_owned(), partial: beside(".partial"), _lock: lock })
    }

    /// Commit and bytes of what was published, if that is what is wanted.
    pub fn published(&self, wanted: &Wanted<'_>) -> Result<Option<(String, u64)>, HubError> {
        let held = match fs::read_dir(&self.to) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HubError::write(&self.to, source)),
            Ok(mut entries) => entries.next().is_some(),
        };
        if !held {
            return Ok(None);
        }
        let occupied = |found: String| HubError::Occupied {
            path: self.to.clone(),
            found,
            wanted: format!("{} at {}", wanted.repository, wanted.revision),
        };
        let manifest = self.manifest().ok_or_else(|| occupied("files that were not fetched by this".to_owned()))?;
        let same = manifest.repository == wanted.repository.to_string()
            && [&manifest.revision, &manifest.asked_for].contains(&&wanted.revision.to_owned());
        if !same {
            return Err(occupied(format!("{} at {}", manifest.repository, manifest.asked_for)));
        }
        let whole = manifest.files.iter().all(|file| {
            fs::metadata(self.to.join(&file.name)).is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
        });
        if !whole {
            return Err(occupied("a checkpoint that was changed after it was fetched".to_owned()));
        }
        let bytes = manifest.files.iter().map(|file| file.size).sum();
        Ok(Some((manifest.revision, bytes)))
    }

    fn manifest(&self) -> Option<Manifest> {
        let path = self.to.join(MANIFEST);
        let small = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_MANIFEST_BYTES);
        small.then(|| serde_json::from_slice(&fs::read(&path).ok()?).ok()).flatten()
    }

    /// The directory of unfinished work on `commit`; what belongs to another one is removed.
    pub fn begin(&self, commit: &str, names: &[&str]) -> Result<&Path, HubError> {
        let failed = |e| HubError::write(&self.partial, e);
        let of = self.partial.join(".commit");
        if self.partial.exists() && fs::read_to_string(&of).ok().as_deref() != Some(commit) {
            fs::remove_dir_all(&self.partial).map_err(failed)?;
        }
        fs::create_dir_all(&self.partial).map_err(failed)?;
        fs::write(&of, commit).map_err(failed)?;
        for entry in fs::read_dir(&self.partial).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = name.strip_suffix(super::part::SUFFIX).unwrap_or(&name);
            if name != ".commit" && !names.contains(&wanted) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(&self.partial)
    }

    /// Makes the finished work the directory.
    pub fn publish(&self, wanted: &Wanted<'_>, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
        let manifest = Manifest {
            repository: wanted.repository.to_string(),
            revision: commit.to_owned(),
            asked_for: wanted.revision.to_owned(),
            files: files.iter().map(|f| ManifestFile { name: f.name.clone(), size: f.size }).collect(),
        };
        let path = self.partial.join(MANIFEST);
        let written = serde_json::to_vec(&manifest).map_err(std::io::Error::other).and_then(|json| {
            let mut file = File::create(&path)?;
            file.write_all(&json)?;
            file.sync_all()
        });
        written.map_err(|e| HubError::write(&path, e))?;
        let renamed = fs::remove_file(self.partial.join(".commit"))
            .and_then(|()| File::open(&self.partial)?.sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.to))
            .and_then(|()| File::open(self.to.parent().unwrap_or(Path::new(".")))?.sync_all());
        renamed.map_err(|e| HubError::write(&self.to, e))
    }
}

//! A repository into a directory: only what a checkpoint needs, resumed where it broke off, compared with the hub's
//! checksums, and published whole or not at all.
//!
//! Beside the directory `DIR` stand `DIR.lock`, held by whoever fetches into it (the kernel frees it when its holder
//! dies), and `DIR.partial`, which becomes `DIR` by one rename when every file is there. A directory that was
//! published stays as it is: nothing is asked when it already holds what is wanted.

mod part;
mod place;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use vlm_contract::uri::Repository;

use crate::hf::{Hub, Place, RemoteFile};
use crate::{HubError, facts, needed};
use place::Directory;

/// Files that are downloaded at the same time.
const AT_ONCE: usize = 4;

/// What to fetch, and whereto.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// The directory that is to hold the checkpoint. Its parent must exist or be creatable.
    pub to: &'a Path,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on the disk.
    pub fetched_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The commit.
    pub revision: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether it was there already.
    pub was_there: bool,
}

/// Fetches a checkpoint; `tell` hears of every step, from several threads.
///
/// # Guarantees
/// When it returns, `to` holds every file with the listed checksum, on the disk. Until then `to` does not exist.
/// Two processes that fetch into one directory wait for each other, and the second finds the work done.
///
/// # Errors
/// Whatever the hub or the disk may end with; what was downloaded is kept for the next attempt.
pub async fn fetch(hub: &Hub, wanted: Wanted<'_>, tell: &(dyn Fn(Progress) + Sync)) -> Result<Fetched, HubError> {
    let directory = Directory::lock(wanted.to).await?;
    if let Some((revision, bytes)) = directory.published(&wanted)? {
        tell(Progress { fetched_bytes: bytes, total_bytes: bytes });
        return Ok(Fetched { revision, bytes, was_there: true });
    }
    let commit = hub.resolve(wanted.repository, wanted.revision).await?;
    let files = checkpoint(hub, wanted.repository, &commit).await?;
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let partial = directory.begin(&commit, &names)?;
    let counter = Counter::new(files.iter().map(|file| file.size).sum(), tell);
    tracing::info!(repository = %wanted.repository, commit, files = files.len(), bytes = counter.total, "fetching");
    let downloads = files.iter().map(|file| part::Download {
        hub,
        place: Place { repository: wanted.repository, commit: &commit, path: &file.name },
        file,
        partial,
        counter: &counter,
    });
    // Collected first: closures over borrowed files would keep the future from crossing threads.
    let downloads: Vec<_> = downloads.map(part::Download::run).collect();
    stream::iter(downloads).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let bytes = counter.total;
    directory.publish(&wanted, &commit, &files)?;
    Ok(Fetched { revision: commit, bytes, was_there: false })
}

/// The files of a commit that a checkpoint needs, weights last.
async fn checkpoint(hub: &Hub, repository: &Repository, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
    let files = hub.files(repository, commit).await?;
    let mut wanted = needed::beside(&files, &repository.to_string())?;
    let (candidate, weights) = facts::weights(hub, repository, commit, &files).await?;
    let indexed = weights.iter().all(|file| file.name != candidate.single);
    wanted.extend(files.iter().filter(|file| indexed && file.name == candidate.index));
    wanted.extend(weights);
    Ok(wanted.into_iter().cloned().collect())
}

/// Adds up what is there, and tells it.
struct Counter<'a> {
    total: u64,
    fetched: AtomicU64,
    tell: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Counter<'a> {
    fn new(total: u64, tell: &'a (dyn Fn(Progress) + Sync)) -> Self {
        let counter = Self { total, fetched: AtomicU64::new(0), tell };
        counter.add(0);
        counter
    }

    fn add(&self, bytes: u64) {
        let fetched_bytes = self.fetched.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.tell)(Progress { fetched_bytes, total_bytes: self.total });
    }

    /// Bytes that are not there after all.
    fn take_back(&self, bytes: u64) {
        let fetched_bytes = self.fetched.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        (self.tell)(Progress { fetched_bytes, total_bytes: self.total });
    }
}

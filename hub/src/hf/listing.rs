//! The list of a commit's files, as the hub gives it in pages.

use serde::Deserialize;

use super::answer;
use crate::HubError;
use crate::digest::Digest;
use crate::error::printable;

/// Pages of a list; the hub puts a thousand files on one.
pub(super) const MAX_PAGES: usize = 10;
/// Bytes of a path.
const MAX_PATH: usize = 1024;

/// A file as the hub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name; it is at the top of the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What its content comes to.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Large>,
}

/// A file that is kept outside git.
#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

/// The files of a page that are at the top.
pub(super) fn parse(what: &str, json: &[u8]) -> Result<Vec<RemoteFile>, HubError> {
    let entries: Vec<Entry> = answer::parse(what, json)?;
    let mut files = Vec::new();
    for entry in entries {
        if !is_plain(&entry.path) {
            return Err(HubError::UnsafePath { path: printable(&entry.path) });
        }
        if entry.kind == "file" && !entry.path.contains('/') {
            files.push(file(what, entry)?);
        }
    }
    Ok(files)
}

fn file(what: &str, entry: Entry) -> Result<RemoteFile, HubError> {
    let (size, oid) = entry.lfs.map_or((entry.size, entry.oid), |large| (large.size, large.oid));
    // Some answers put the algorithm before the digits.
    let digits = oid.strip_prefix("sha256:").unwrap_or(&oid);
    let digest = Digest::parse(digits).ok_or_else(|| HubError::Answer {
        what: what.to_owned(),
        reason: format!("the checksum of {} is none", printable(&entry.path)),
    })?;
    Ok(RemoteFile { name: entry.path, size, digest })
}

/// Whether a path stays inside the directory that it is below.
fn is_plain(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains(['\\', '\0'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Where the list goes on: the target of `rel="next"` in a `Link` header (RFC 8288).
pub(super) fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (target, parameters) = one.split_once(';')?;
        let next = parameters.split(';').any(|p| matches!(p.trim(), r#"rel="next""# | "rel=next"));
        next.then(|| target.trim().trim_start_matches('<').trim_end_matches('>'))
    })
}

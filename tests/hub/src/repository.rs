//! Published repositories: files, the commit that they are, and who may read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};

/// Names of files that the hub keeps outside git, by their ends.
const LARGE: [&str; 3] = [".safetensors", ".bin", ".model"];
/// A file of a folder of repositories that holds the token of a private one.
const TOKEN_FILE: &str = ".token";

/// A repository of one commit, which `main` names.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// `ORGANISATION/NAME`.
    pub name: String,
    /// Its files by their paths.
    pub files: BTreeMap<String, Bytes>,
    /// Whoever sends it may read; nobody else, when there is one.
    pub token: Option<String>,
    /// More entries of the list of files, as they stand.
    pub more_entries: Vec<Value>,
    /// Entries on a page of that list; 0 puts all on one.
    pub page: usize,
}

impl Repository {
    /// The files of a folder, one level deep.
    pub fn of_folder(name: &str, folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut token = None;
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if !path.is_file() {
                continue;
            }
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let content = std::fs::read(&path).unwrap();
            if file == TOKEN_FILE {
                token = Some(String::from_utf8(content).unwrap().trim().to_owned());
            } else {
                files.insert(file, Bytes::from(content));
            }
        }
        Self { name: name.to_owned(), files, token, ..Self::default() }
    }

    /// Every `ROOT/ORGANISATION/NAME`.
    pub fn all_below(root: &Path) -> Vec<Self> {
        let folders = |path: &Path| {
            let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        let last = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let organisations = folders(root);
        let names = organisations.iter().flat_map(|organisation| folders(organisation));
        names.map(|path| Self::of_folder(&format!("{}/{}", last(path.parent().unwrap()), last(&path)), &path)).collect()
    }

    /// The commit: it changes with every byte of every file.
    pub fn commit(&self) -> String {
        let mut sum = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        for (path, content) in &self.files {
            sum.update(format!("{path} {}\n", sha256(content)).as_bytes());
        }
        hex(sum.finish().as_ref())
    }

    /// Whether `revision` names this commit.
    pub fn has_revision(&self, revision: &str) -> bool {
        revision == "main" || revision == self.commit()
    }

    pub(crate) fn entries(&self) -> Vec<Value> {
        let listed = self.files.iter().map(|(path, content)| {
            let (size, oid) = (content.len(), git_blob(content));
            let mut entry = json!({"type": "file", "path": path, "size": size, "oid": oid});
            if is_large(path) {
                entry["lfs"] = json!({"oid": sha256(content), "size": size, "pointerSize": 134});
            }
            entry
        });
        listed.chain(self.more_entries.iter().cloned()).collect()
    }
}

/// Whether the hub keeps a file of this path outside git.
pub(crate) fn is_large(path: &str) -> bool {
    LARGE.iter().any(|end| path.ends_with(end))
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

fn git_blob(content: &[u8]) -> String {
    let mut sum = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sum.update(format!("blob {}\0", content.len()).as_bytes());
    sum.update(content);
    hex(sum.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

//! Pictures from `file://` URLs, under one directory and nowhere else: neither `..` nor a link leads out of it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use reqwest::Url;
use thiserror::Error;

use super::ImageError;

/// `O_NONBLOCK` of Linux: opening a pipe that nobody writes does not wait.
const DO_NOT_WAIT: i32 = 0o4000;

/// Why a file was not read, as a sentence for the client. Whether it exists outside of the directory is not told.
#[derive(Debug, Error, PartialEq)]
pub enum FileError {
    /// No path on this machine.
    #[error("the file URL is not valid; write it as file:///directory/picture.png")]
    Url,
    /// Not a readable file of the directory.
    #[error("there is no readable file of this name under the directory that --image-root allows")]
    NotThere,
    /// Too large.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// The directory under which files may be read.
#[derive(Clone, Debug)]
pub struct ImageRoot(PathBuf);

impl ImageRoot {
    /// `directory`, which must exist.
    ///
    /// # Errors
    /// When it does not, or is no directory.
    pub fn new(directory: &Path) -> std::io::Result<Self> {
        let directory = directory.canonicalize()?;
        if !directory.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(directory))
    }

    /// The path that a file URL names.
    ///
    /// # Errors
    /// [`FileError::Url`].
    pub fn path(url: &str) -> Result<PathBuf, FileError> {
        let url = Url::parse(url).map_err(|_| FileError::Url)?;
        if url.scheme() != "file" || url.host_str().is_some_and(|host| !host.is_empty()) {
            return Err(FileError::Url);
        }
        url.to_file_path().map_err(|()| FileError::Url)
    }

    /// The bytes of the file at `path`, at most `most` of them. Blocks.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(&self, path: &Path, most: u64) -> Result<Bytes, FileError> {
        let file = self.open(path).ok_or(FileError::NotThere)?;
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|_| FileError::NotThere)?;
        if bytes.len() as u64 > most {
            return Err(ImageError::TooManyBytes { bytes: bytes.len() as u64, limit: most }.into());
        }
        Ok(bytes.into())
    }

    fn open(&self, path: &Path) -> Option<File> {
        // A pipe or a device would notice that it is opened.
        path.metadata().ok().filter(Metadata::is_file)?;
        let file = OpenOptions::new().read(true).custom_flags(DO_NOT_WAIT).open(path).ok()?;
        // Where what was opened lies counts, not where links led a moment before.
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        opened.starts_with(&self.0).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_under_the_root_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("root-beside"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(root.join("sub/a b.png"), b"inside").unwrap();
        std::fs::write(outside.join("secret"), b"secret").unwrap();
        symlink(&outside, root.join("door")).unwrap();
        symlink(outside.join("secret"), root.join("link")).unwrap();
        symlink(root.join("sub/a b.png"), root.join("inner")).unwrap();
        let images = ImageRoot::new(&root).unwrap();
        let read = |name: &str| {
            let url = format!("file://{}/{name}", root.display());
            ImageRoot::path(&url).and_then(|path| images.read(&path, 10))
        };
        assert_eq!(read("sub/a%20b.png").unwrap(), "inside");
        assert_eq!(read("sub/../inner").unwrap(), "inside");
        for name in [
            "../root-beside/secret",
            "%2e%2e/root-beside/secret",
            "sub/..%2f..%2froot-beside/secret",
            "door/secret",
            "link",
            "",
            "sub",
            "nothing",
            "a%00b",
        ] {
            assert!(matches!(read(name), Err(FileError::NotThere | FileError::Url)), "{name}");
        }
        assert_eq!(images.read(Path::new("/dev/zero"), 10), Err(FileError::NotThere));
        // Nobody writes to it, so that it could be opened and had nothing in it.
        let pipe = root.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read("pipe"), Err(FileError::NotThere));
        std::fs::write(root.join("large"), b"eleven bytes").unwrap();
        assert!(matches!(read("large"), Err(FileError::Image(ImageError::TooManyBytes { .. }))));
    }

    #[test]
    fn other_urls_name_no_file() {
        for url in ["file://host/x", "http://x/y", "x", "file://..", ""] {
            assert!(ImageRoot::path(url).is_err(), "{url}");
        }
        assert_eq!(ImageRoot::path("file:///a/../b").unwrap(), Path::new("/b"));
        assert_eq!(ImageRoot::path("file://localhost/a").unwrap(), Path::new("/a"));
    }
}

//! One file: what is there of it is hashed, the rest comes by range, and only the listed checksum makes it a file.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use reqwest::Response;
use ring::digest::Context;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::Counter;
use crate::HubError;
use crate::digest::digits;
use crate::hf::{Hub, Place, RemoteFile, broken};
use crate::patience::Failure;

/// Behind the name of a file that is not complete.
pub(super) const SUFFIX: &str = ".part";
/// Bytes that are hashed and written at once.
const BLOCK: usize = 1 << 20;
/// Downloads of a file whose checksum is wrong: the first may have gone on with a damaged beginning.
const ROUNDS: usize = 2;

/// The download of one file.
pub(super) struct Download<'a> {
    pub hub: &'a Hub,
    pub place: Place<'a>,
    pub file: &'a RemoteFile,
    /// The directory of unfinished work.
    pub partial: &'a Path,
    pub counter: &'a Counter<'a>,
}

impl Download<'_> {
    /// Fetches the file, unless it is there.
    pub async fn run(self) -> Result<(), HubError> {
        let finished = self.partial.join(&self.file.name);
        // It got its name after its checksum was found right.
        if tokio::fs::metadata(&finished).await.is_ok_and(|meta| meta.len() == self.file.size) {
            self.counter.add(self.file.size);
            return Ok(());
        }
        let path = self.partial.join(format!("{}{SUFFIX}", self.file.name));
        let mut round = 1;
        loop {
            let mut part = Part::open(path.clone(), self.file, self.counter).await?;
            self.fill(&mut part).await?;
            match part.finish(&finished).await {
                Err(error @ HubError::Checksum { .. }) if round < ROUNDS => {
                    tracing::warn!(%error, "fetched anew");
                    round += 1;
                }
                result => return result,
            }
        }
    }

    async fn fill(&self, part: &mut Part<'_>) -> Result<(), HubError> {
        let (what, mut pauses) = (self.place.name(), self.hub.patience().pauses());
        while part.written < self.file.size {
            let before = part.written;
            let Err(failure) = self.stream(part).await else { continue };
            if part.written > before {
                pauses.reset();
            }
            pauses.after(&what, failure).await?;
        }
        Ok(())
    }

    /// One answer, as far as it goes.
    async fn stream(&self, part: &mut Part<'_>) -> Result<(), Failure> {
        let (response, begins) = self.hub.open(self.place, part.written).await?;
        if begins < part.written {
            part.restart().await?;
        }
        let ended = part.take(response).await;
        part.flush().await?;
        ended?;
        if part.written < self.file.size {
            let reason = format!("the answer ended at byte {} of {}", part.written, self.file.size);
            return Err(Failure::passing(reason));
        }
        Ok(())
    }
}

/// A file in the making.
struct Part<'a> {
    path: PathBuf,
    listed: &'a RemoteFile,
    counter: &'a Counter<'a>,
    file: File,
    context: Context,
    /// Bytes hashed and written.
    written: u64,
    waiting: BytesMut,
}

impl<'a> Part<'a> {
    /// Opens what there is, and hashes it.
    async fn open(path: PathBuf, listed: &'a RemoteFile, counter: &'a Counter<'a>) -> Result<Self, HubError> {
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).await;
        let file = opened.map_err(|e| HubError::write(&path, e))?;
        let context = listed.digest.begin(listed.size);
        let waiting = BytesMut::with_capacity(BLOCK);
        let mut part = Self { path, listed, counter, file, context, written: 0, waiting };
        let there = part.file.metadata().await.map_err(|e| part.failed(e))?.len();
        if there > listed.size {
            part.restart().await?;
        } else {
            part.hash_what_is_there(there).await?;
        }
        Ok(part)
    }

    async fn hash_what_is_there(&mut self, bytes: u64) -> Result<(), HubError> {
        let mut block = vec![0; BLOCK];
        while self.written < bytes {
            let read = self.file.read(&mut block).await.map_err(|e| self.failed(e))?;
            if read == 0 {
                break;
            }
            self.context.update(&block[..read]);
            self.written += read as u64;
        }
        self.counter.add(self.written);
        Ok(())
    }

    /// Begins anew.
    async fn restart(&mut self) -> Result<(), HubError> {
        self.counter.take_back(self.written);
        self.written = 0;
        self.waiting.clear();
        self.context = self.listed.digest.begin(self.listed.size);
        self.file.set_len(0).await.map_err(|e| self.failed(e))?;
        self.file.seek(SeekFrom::Start(0)).await.map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Takes in a body that begins where the file ends.
    async fn take(&mut self, mut response: Response) -> Result<(), Failure> {
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(&self.listed.name, e))? {
            let size = self.written + (self.waiting.len() + chunk.len()) as u64;
            if size > self.listed.size {
                let reason = format!("more than the {} bytes that are listed come", self.listed.size);
                return Err(HubError::malformed(&self.listed.name, reason).into());
            }
            self.waiting.extend_from_slice(&chunk);
            if self.waiting.len() >= BLOCK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), HubError> {
        let block = std::mem::take(&mut self.waiting);
        self.file.write_all(&block).await.map_err(|e| self.failed(e))?;
        // The file hands its writes to another thread; only now are they done.
        self.file.flush().await.map_err(|e| self.failed(e))?;
        self.context.update(&block);
        self.written += block.len() as u64;
        self.counter.add(block.len() as u64);
        self.waiting = block;
        self.waiting.clear();
        Ok(())
    }

    /// Compares the checksum and gives the file its name; one that is wrong is removed.
    async fn finish(self, finished: &Path) -> Result<(), HubError> {
        let actual = digits(self.context.clone());
        let digest = &self.listed.digest;
        if actual != digest.expected() {
            self.counter.take_back(self.written);
            tokio::fs::remove_file(&self.path).await.map_err(|e| self.failed(e))?;
            return Err(HubError::Checksum {
                file: self.listed.name.clone(),
                kind: digest.kind(),
                actual,
                expected: digest.expected().to_owned(),
            });
        }
        self.file.sync_all().await.map_err(|e| self.failed(e))?;
        tokio::fs::rename(&self.path, finished).await.map_err(|e| HubError::write(finished, e))
    }

    fn failed(&self, source: std::io::Error) -> HubError {
        HubError::write(&self.path, source)
    }
}

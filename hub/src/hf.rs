//! The API of the Hugging Face hub, or of a mirror that speaks it: which commit a revision is, which files a
//! commit has, and bytes of a file. Every answer is bounded; what may pass is asked again.
//!
//! # Guarantees
//! The token goes to the endpoint alone: to scheme, host and port of it. Redirects, with which the hub sends
//! downloads to its storage, are followed without it, and never from https to http.

mod answer;
mod listing;

use std::ops::Range;

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;
use vlm_contract::uri::{Repository, is_commit, is_revision};

use crate::HubError;
use crate::header as safetensors;
use crate::patience::{Failure, Patience};
use crate::token::Token;

pub use crate::digest::Digest;
pub(crate) use answer::broken;
pub use listing::RemoteFile;

/// The public hub.
pub const PUBLIC: &str = "https://huggingface.co";
/// Redirects of one question.
const REDIRECTS: usize = 5;
/// Bytes of what the hub says of a repository.
const MAX_REPOSITORY_BYTES: u64 = 16 << 20;

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base address of the hub or of a mirror.
    pub endpoint: String,
    /// For private and gated repositories.
    pub token: Option<Token>,
    /// Time limits.
    pub patience: Patience,
}

/// A client of one hub.
#[derive(Clone, Debug)]
pub struct Hub {
    http: Client,
    endpoint: Url,
    token: Option<Token>,
    patience: Patience,
}

/// A file of a commit.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The commit.
    pub commit: &'a str,
    /// Path inside the repository.
    pub path: &'a str,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

impl Hub {
    /// A client; asks nothing yet.
    ///
    /// # Errors
    /// [`HubError::Settings`] when the endpoint is no http or https address, or the system has no certificates.
    pub fn new(settings: &Settings) -> Result<Self, HubError> {
        let endpoint = endpoint(&settings.endpoint)?;
        // Kept here so that no caller can forget it: without a provider of TLS the builder panics.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that somebody else was quicker, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let patience = settings.patience;
        let http = Client::builder()
            .user_agent(concat!("vlm-hub/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .redirect(redirects())
            .connect_timeout(patience.connect_timeout)
            .read_timeout(patience.read_timeout)
            .build()
            .map_err(|e| HubError::Settings(format!("no HTTP client for the hub: {}", answer::chain(&e))))?;
        Ok(Self { http, endpoint, token: settings.token.clone(), patience })
    }

    /// The commit that `revision` is now. A commit is itself; the hub is not asked.
    ///
    /// # Errors
    /// When there is none, or it may not be seen.
    pub async fn resolve(&self, repository: &Repository, revision: &str) -> Result<String, HubError> {
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        if !is_revision(revision) {
            return Err(HubError::Settings(format!("the revision {revision:?} is no branch, tag or commit")));
        }
        let what = format!("revision {revision} of {repository}");
        let url = self.address(["api", "models"], repository, ["revision", revision]);
        let json = self.json(&what, &url).await?;
        let Revision { sha } = answer::parse(&what, &json)?;
        if !is_commit(&sha) {
            return Err(HubError::Answer { what, reason: "its sha is no commit".to_owned() });
        }
        Ok(sha)
    }

    /// The files at the top of a commit, in the order of the hub.
    ///
    /// # Errors
    /// [`HubError::UnsafePath`] when one of them is no plain path, and whatever asking may end with.
    pub async fn files(&self, repository: &Repository, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
        let what = format!("the files of {repository} at {commit}");
        let mut next = Some(self.address(["api", "models"], repository, ["tree", commit]));
        let (mut files, mut pages) = (Vec::new(), 0);
        while let Some(url) = next {
            pages += 1;
            if pages > listing::MAX_PAGES {
                return Err(HubError::Answer { what, reason: format!("it has more than {} pages", pages - 1) });
            }
            let (page, link) = self.patience.again(&what, || self.page(&what, &url)).await?;
            files.extend(listing::parse(&what, &page)?);
            next = link.as_deref().and_then(listing::next).map(|link| self.same_hub(&what, link)).transpose()?;
        }
        Ok(files)
    }

    /// A small file, whole.
    ///
    /// # Errors
    /// [`HubError::TooLarge`] when it has more than `limit` bytes.
    pub async fn read(&self, place: Place<'_>, limit: u64) -> Result<Vec<u8>, HubError> {
        let (what, url) = (place.name(), self.download_address(place));
        self.patience.again(&what, || self.whole(&what, &url, limit)).await
    }

    /// The bytes `range` of a file; fewer where the file ends before. A server that knows no ranges is read from
    /// its beginning, for which `range` must not lie far behind.
    ///
    /// # Errors
    /// Whatever asking may end with.
    pub async fn read_range(&self, place: Place<'_>, range: Range<u64>) -> Result<Vec<u8>, HubError> {
        let (what, url) = (place.name(), self.download_address(place));
        self.patience.again(&what, || self.part(&what, &url, range.clone())).await
    }

    /// The tensors of a safetensors file of `size` bytes: two questions, of which the second is bounded by the
    /// answer to the first.
    ///
    /// # Errors
    /// [`HubError::Malformed`] when the header is not what it must be.
    pub async fn header(&self, place: Place<'_>, size: u64) -> Result<Vec<safetensors::TensorPlace>, HubError> {
        let malformed = |e: safetensors::HeaderError| HubError::malformed(place.name(), e);
        let begin = safetensors::PREFIX_BYTES as u64;
        let prefix = self.read_range(place, 0..begin).await?;
        let length = safetensors::length(&prefix, size).map_err(malformed)?;
        let json = self.read_range(place, begin..begin + length as u64).await?;
        if json.len() != length {
            let reason = format!("its header has {length} bytes, of which {} came", json.len());
            return Err(HubError::malformed(place.name(), reason));
        }
        safetensors::parse(&json, size).map_err(malformed)
    }

    /// Opens a file for download, from byte `from` on; the first byte of the answer's body, which is 0 where the
    /// server knows no ranges.
    pub(crate) async fn open(&self, place: Place<'_>, from: u64) -> Result<(Response, u64), Failure> {
        let (what, url) = (place.name(), self.download_address(place));
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.ask(&what, &url, range, None).await?;
        let begins = answer::begin(&what, &response)?;
        if begins != 0 && begins != from {
            let reason = format!("it begins at byte {begins}, not {from}");
            return Err(HubError::Answer { what, reason }.into());
        }
        Ok((response, begins))
    }

    pub(crate) const fn patience(&self) -> &Patience {
        &self.patience
    }

    async fn json(&self, what: &str, url: &Url) -> Result<Vec<u8>, HubError> {
        self.patience.again(what, || self.whole(what, url, MAX_REPOSITORY_BYTES)).await
    }

    async fn page(&self, what: &str, url: &Url) -> Result<(Vec<u8>, Option<String>), Failure> {
        let response = self.ask(what, url, None, Some(self.patience)).await?;
        let link = response.headers().get(header::LINK).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
        Ok((answer::whole(what, response, MAX_REPOSITORY_BYTES).await?, link))
    }

    async fn whole(&self, what: &str, url: &Url, limit: u64) -> Result<Vec<u8>, Failure> {
        let response = self.ask(what, url, None, Some(self.patience)).await?;
        answer::whole(what, response, limit).await
    }

    async fn part(&self, what: &str, url: &Url, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let header = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let response = self.ask(what, url, Some(header), Some(self.patience)).await?;
        let begins = answer::begin(what, &response)?;
        answer::part(what, response, begins, range).await
    }

    /// One question; an answer that is a success.
    async fn ask(
        &self,
        what: &str,
        url: &Url,
        range: Option<String>,
        bounded: Option<Patience>,
    ) -> Result<Response, Failure> {
        let mut request = self.http.get(url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(patience) = bounded {
            request = request.timeout(patience.answer_timeout);
        }
        let response = request.send().await.map_err(|e| answer::broken(what, e))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(answer::failure(what, &response, self.token.is_some())),
        }
    }

    /// An address below the endpoint; slashes inside a part are part of it.
    fn address<const N: usize, const M: usize>(
        &self,
        before: [&str; N],
        repository: &Repository,
        behind: [&str; M],
    ) -> Url {
        let (mut url, name) = (self.endpoint.clone(), repository.to_string());
        // An http or https address always has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(before).extend(name.split('/')).extend(behind);
        }
        url
    }

    fn download_address(&self, place: Place<'_>) -> Url {
        let mut url = self.address([], place.repository, ["resolve", place.commit]);
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(place.path.split('/'));
        }
        url
    }

    /// Where a list goes on, if that is the same hub: the token would be sent there.
    fn same_hub(&self, what: &str, link: &str) -> Result<Url, HubError> {
        let refused = |reason: String| HubError::Answer { what: what.to_owned(), reason };
        let url = self.endpoint.join(link).map_err(|e| refused(format!("its next page is no address: {e}")))?;
        if url.origin() == self.endpoint.origin() {
            return Ok(url);
        }
        Err(refused("its next page is on another host".to_owned()))
    }
}

impl Place<'_> {
    /// For people.
    pub fn name(&self) -> String {
        format!("{} of {} at {}", self.path, self.repository, self.commit)
    }
}

fn endpoint(text: &str) -> Result<Url, HubError> {
    let wrong = |reason: &str| {
        HubError::Settings(format!("the address of the hub {:?} {reason}", crate::error::printable(text)))
    };
    let url = Url::parse(text).map_err(|_| wrong("is not an address such as https://huggingface.co"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("must begin with https:// or http:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HubError::Settings("the address of the hub must not hold a user or a password".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with its path"));
    }
    Ok(url)
}

/// Follows a few redirects, none of which gives up encryption. The token is dropped by the client as soon as one
/// leads to another scheme, host or port.
fn redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        if attempt.previous().len() > REDIRECTS {
            return attempt.error("more redirects than are followed");
        }
        let secure = attempt.previous().iter().any(|url| url.scheme() == "https");
        if secure && attempt.url().scheme() != "https" {
            return attempt.error("a redirect from https to http");
        }
        attempt.follow()
    })
}

#[cfg(test)]
mod tests;

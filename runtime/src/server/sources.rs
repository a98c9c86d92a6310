//! Where pictures may come from besides the request itself: other servers and one directory, each only when a flag
//! of the server allows it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vlm_contract::flags;

use super::call::Picture;
use super::data_url;
use super::error::{ApiError, excerpt};
use crate::image::fetch::Fetcher;
use crate::image::file::ImageRoot;

/// Fetched pictures that are held at once.
const MOST_FETCHED: usize = 16;

/// What is allowed.
#[derive(Debug)]
pub struct Sources {
    web: Option<Fetcher>,
    root: Option<ImageRoot>,
    fetched: Arc<Semaphore>,
}

/// Room for fetched pictures; free again when this is dropped.
#[derive(Debug)]
pub struct FetchRoom(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Sources {
    /// Other servers through `web`, files under `root`.
    pub fn new(web: Option<Fetcher>, root: Option<ImageRoot>) -> Self {
        Self { web, root, fetched: Arc::new(Semaphore::new(MOST_FETCHED)) }
    }

    /// What `url`, the value of `param`, stands for, if it is allowed. Nothing is asked yet.
    ///
    /// # Errors
    /// A URL that is none, or not allowed; the error says what would allow it.
    pub fn picture(&self, url: String, param: &str) -> Result<Picture, ApiError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "https" => {
                let Some(web) = &self.web else {
                    return Err(forbidden(param, &format!("{scheme} URLs"), flags::ALLOW_IMAGE_URLS));
                };
                let checked = web.check(&url);
                checked.map(Picture::Web).map_err(|source| ApiError::Fetch { param: param.to_owned(), source })
            }
            "file" => {
                if self.root.is_none() {
                    return Err(forbidden(param, "file URLs", flags::IMAGE_ROOT));
                }
                let path = ImageRoot::path(&url);
                path.map(Picture::Path).map_err(|source| ApiError::ImageFile { param: param.to_owned(), source })
            }
            "data" => {
                data_url::base64_of(&url, param)?;
                Ok(Picture::DataUrl(url))
            }
            "" => Err(unknown(param, &url)),
            _ if url.len() > scheme.len() + 1
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
            {
                let message = format!(
                    "{param}: {} URLs are not read; send the picture itself as `data:image/png;base64,…`",
                    excerpt(&scheme)
                );
                Err(ApiError::field(param, message))
            }
            _ => Err(unknown(param, &url)),
        }
    }

    /// Room for `pictures` that will be fetched; waits until there is some.
    pub async fn room(&self, pictures: usize) -> Option<FetchRoom> {
        let pictures = u32::try_from(pictures.min(MOST_FETCHED)).unwrap_or(1);
        Arc::clone(&self.fetched).acquire_many_owned(pictures).await.ok().map(FetchRoom)
    }

    /// Fetches a picture that [`Self::picture`] allowed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn fetch(&self, url: reqwest::Url, param: &str) -> Result<Bytes, ApiError> {
        let web = self.web.as_ref().ok_or(ApiError::Internal)?;
        web.fetch(url).await.map_err(|source| ApiError::Fetch { param: param.to_owned(), source })
    }

    /// Reads at most `most` bytes of a file that [`Self::picture`] allowed. Blocks.
    ///
    /// # Errors
    /// Why it is not read.
    pub fn read(&self, path: &std::path::Path, most: u64, param: &str) -> Result<Bytes, ApiError> {
        let root = self.root.as_ref().ok_or(ApiError::Internal)?;
        root.read(path, most).map_err(|source| ApiError::ImageFile { param: param.to_owned(), source })
    }
}

fn forbidden(param: &str, what: &str, flag: &str) -> ApiError {
    let message = format!(
        "{param}: {what} are not allowed on this server; send the picture itself as `data:image/png;base64,…`, or \
         start the server with {flag}"
    );
    ApiError::field(param, message)
}

fn unknown(param: &str, url: &str) -> ApiError {
    let message = format!("{param}: `{}` is no data URL; send the picture as `data:image/png;base64,…`", excerpt(url));
    ApiError::field(param, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Sources::new(None, None).picture(url.to_owned(), "x").unwrap_err().body().error.message
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_what_would_allow_it() {
        for url in ["http://a/b.png", "HTTPS://a/b.png"] {
            assert!(refused(url).contains("--allow-image-urls"), "{url}");
        }
        assert!(refused("file:///etc/passwd").contains("--image-root"));
        assert!(refused("ftp://a/b.png").contains("ftp URLs are not read"));
        assert!(refused("javascript:alert(1)").contains("are not read"));
        for url in ["", "x", "data", "aGk=", "é:é", ":"] {
            assert!(refused(url).contains("no data URL"), "{url}");
        }
    }
}

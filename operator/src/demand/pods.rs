//! Scrapes one pod.

use reqwest::Client;

use super::reading::{Reading, ReadingError, parse};

/// More than any runtime writes; a page that is longer is not one of ours.
const PAGE_MAX: usize = 1 << 20;

/// Why a pod could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// It did not answer, or not in time, or with an error.
    #[error("the pod does not answer")]
    Http(#[source] reqwest::Error),
    /// Its answer is too long.
    #[error("the page is longer than {PAGE_MAX} bytes")]
    TooLong,
    /// Its answer is no usable page.
    #[error("the page is unusable")]
    Page(#[source] ReadingError),
}

/// Reads `/metrics` of the server at `address`, an IP address. The client has the time limit.
pub async fn scrape(http: &Client, address: &str, port: u16) -> Result<Reading, ScrapeError> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let answer = http.get(format!("http://{host}:{port}/metrics")).send().await;
    let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(ScrapeError::Http)?;
    let mut page = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ScrapeError::Http)? {
        if page.len() + chunk.len() > PAGE_MAX {
            return Err(ScrapeError::TooLong);
        }
        page.extend_from_slice(&chunk);
    }
    parse(&String::from_utf8_lossy(&page)).map_err(ScrapeError::Page)
}

//! Scrapes one pod.

use reqwest::Client;

use super::{
    page::{PageError, fetch},
    reading::{Reading, ReadingError, parse},
};

/// More than any runtime writes; a page that is longer is not one of ours.
const PAGE_MAX: usize = 1 << 20;

/// Why a pod could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// There is no page.
    #[error("the pod cannot be read")]
    Fetch(#[source] PageError),
    /// Its answer is no usable page.
    #[error("the page is unusable")]
    Page(#[source] ReadingError),
}

/// Reads `/metrics` of the server at `address`, an IP address. The client has the time limit.
pub async fn scrape(http: &Client, address: &str, port: u16) -> Result<Reading, ScrapeError> {
    let page = fetch(http, address, port, PAGE_MAX).await.map_err(ScrapeError::Fetch)?;
    parse(&page).map_err(ScrapeError::Page)
}

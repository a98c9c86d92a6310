//! Fetches one page of metrics.

use reqwest::Client;

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It did not answer, or not in time, or with an error.
    #[error("there is no answer")]
    Http(#[source] reqwest::Error),
    /// Its answer is too long.
    #[error("the page is longer than {0} bytes")]
    TooLong(usize),
}

/// Reads `/metrics` of the server at `address`, an IP address, up to `most` bytes. The client has the time limit.
pub async fn fetch(http: &Client, address: &str, port: u16, most: usize) -> Result<String, PageError> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let answer = http.get(format!("http://{host}:{port}/metrics")).send().await;
    let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(PageError::Http)?;
    let mut page = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(PageError::Http)? {
        if page.len() + chunk.len() > most {
            return Err(PageError::TooLong(most));
        }
        page.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

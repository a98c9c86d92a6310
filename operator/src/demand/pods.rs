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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::{Router, routing::get};
    use tokio::net::TcpListener;

    use super::*;
    use crate::run::http_client;

    const GAUGES: &str = "vlm_requests_running 3\nvlm_requests_waiting 1\nvlm_requests_capacity 8\n";

    /// A pod that says so.
    async fn pod(page: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/metrics", get(move || std::future::ready(page.clone())));
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// As the operator reads it, and when.
    async fn read(port: u16) -> (Result<Reading, ScrapeError>, Instant) {
        // An error means that another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        (scrape(&http_client().unwrap(), "127.0.0.1", port).await, Instant::now())
    }

    #[tokio::test]
    async fn a_pod_that_says_nothing_is_given_up_and_keeps_no_other_from_being_read() {
        // It is connected to, and nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = pod(GAUGES.to_owned()).await;
        let begun = Instant::now();
        let ((nothing, given_up), (reading, heard)) =
            tokio::join!(read(silent.local_addr().unwrap().port()), read(good));
        assert!(matches!(nothing, Err(ScrapeError::Fetch(PageError::Http(error))) if error.is_timeout()));
        assert_eq!(reading.unwrap().waiting, 1.0);
        assert!(heard < given_up);
        // A look is due every 2 s; the rest is for a busy machine.
        let took = given_up.duration_since(begun);
        assert!(took.as_secs() < 10, "{took:?}");
    }

    #[tokio::test]
    async fn a_page_that_is_too_long_is_left() {
        let padded = |length: usize| format!("{GAUGES}#{}\n", "x".repeat(length - GAUGES.len() - 2));
        assert_eq!(read(pod(padded(PAGE_MAX)).await).await.0.unwrap().running, 3.0);
        let (longer, _) = read(pod(padded(PAGE_MAX + 1)).await).await;
        assert!(matches!(longer, Err(ScrapeError::Fetch(PageError::TooLong(PAGE_MAX)))), "{longer:?}");
    }
}

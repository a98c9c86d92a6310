//! Pictures from other servers, over http and https, without letting a client reach what this server alone can reach:
//! every address that a host has is checked, the connection goes to a checked one, and every redirect is checked anew.
//!
//! # Guarantees
//! At most [`FetchLimits::bytes`] are kept of an answer, and all of it ends within [`FetchLimits::time`]. No proxy is
//! used, no cookie or credential is sent, and https never becomes http. What an answer is, its bytes say.

mod address;
mod resolve;

use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use thiserror::Error;

pub use address::{Network, Networks};
pub use resolve::{Lookup, NotPublic, SystemLookup};

use super::{ImageError, decode};
use resolve::Checked;

/// Redirects of one picture.
const REDIRECTS: usize = 3;
/// Longest URL in bytes.
const LONGEST_URL: usize = 8192;
/// Share of the whole time within which a connection must stand.
const CONNECT_SHARE: u32 = 2;

/// What fetching a picture may cost.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Most bytes of the file.
    pub bytes: u64,
    /// From the first question to the last byte, redirects included.
    pub time: Duration,
}

/// Why a picture could not be fetched, as a sentence for the client. It tells nothing about hosts that the client
/// could not have asked itself.
#[derive(Debug, Error, PartialEq)]
pub enum FetchError {
    /// No address of a picture.
    #[error("the URL is not valid ({reason}); send an http or https URL, or the picture itself as a data URL")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The host is inside, or unknown.
    #[error("the host `{host}` has no public address; send the picture itself as a data URL")]
    NotPublic {
        /// The host, as the URL or a redirect names it.
        host: String,
    },
    /// The redirects do not end, or lead to what is not fetched.
    #[error("{0}; send the URL of the picture itself")]
    Redirect(&'static str),
    /// The server does not give the picture.
    #[error("the server of the picture answered {status}; check the URL")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Too slow.
    #[error("the picture did not arrive within {seconds} s; send it as a data URL")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// No connection, or one that broke.
    #[error("the server of the picture cannot be reached, or broke off; check the URL or send a data URL")]
    Connection,
    /// What came is no picture that is served.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Fetches pictures.
#[derive(Clone, Debug)]
pub struct Fetcher {
    http: Client,
    networks: Arc<Networks>,
    limits: FetchLimits,
}

impl Fetcher {
    /// A fetcher that asks `lookup` for the addresses of hosts, and goes to public ones and to those of `networks`.
    ///
    /// # Errors
    /// When the system has no certificates.
    pub fn new(limits: FetchLimits, networks: Networks, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        // Without a provider of TLS the builder panics. An error means that somebody else was quicker, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let networks = Arc::new(networks);
        let http = Client::builder()
            .user_agent(concat!("vlm-runtime/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(limits.time / CONNECT_SHARE)
            .dns_resolver(Arc::new(Checked { lookup, networks: Arc::clone(&networks) }))
            .build()?;
        Ok(Self { http, networks, limits })
    }

    /// Checks what can be known of a URL without asking anyone.
    ///
    /// # Errors
    /// As [`Self::fetch`], before any connection.
    pub fn check(&self, url: &str) -> Result<Url, FetchError> {
        let wrong = |reason: &str| FetchError::Url { reason: reason.to_owned() };
        if url.len() > LONGEST_URL {
            return Err(wrong("it is longer than 8192 bytes"));
        }
        let url = Url::parse(url).map_err(|error| FetchError::Url { reason: error.to_string() })?;
        self.check_url(&url)?;
        Ok(url)
    }

    fn check_url(&self, url: &Url) -> Result<(), FetchError> {
        let wrong = |reason: &str| FetchError::Url { reason: reason.to_owned() };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user name or a password"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        // An address is never looked up, so that it would pass the resolver by.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if literal.is_ok_and(|address| !self.networks.admit(address)) {
            return Err(FetchError::NotPublic { host: shown(host) });
        }
        Ok(())
    }

    /// The bytes of the picture at `url`.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, url: Url) -> Result<Bytes, FetchError> {
        let seconds = self.limits.time.as_secs();
        let fetched = tokio::time::timeout(self.limits.time, self.follow(url)).await;
        fetched.unwrap_or(Err(FetchError::Timeout { seconds }))
    }

    async fn follow(&self, mut url: Url) -> Result<Bytes, FetchError> {
        for _ in 0..=REDIRECTS {
            self.check_url(&url)?;
            let host = url.host_str().map(shown).unwrap_or_default();
            let asked = self.http.get(url.clone()).header(header::ACCEPT, "image/*").send().await;
            let response = asked.map_err(|error| failure(&error, host))?;
            if !response.status().is_redirection() {
                return self.body(response).await;
            }
            let next = target(&url, &response)?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(FetchError::Redirect("the URL is redirected from https to something else"));
            }
            url = next;
        }
        Err(FetchError::Redirect("the URL is redirected too often"))
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, FetchError> {
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { status: response.status().as_u16() });
        }
        let limit = self.limits.bytes;
        let too_many = |bytes| FetchError::Image(ImageError::TooManyBytes { bytes, limit });
        if let Some(bytes) = response.content_length().filter(|bytes| *bytes > limit) {
            return Err(too_many(bytes));
        }
        let mut received = BytesMut::new();
        let mut recognised = false;
        while let Some(chunk) = response.chunk().await.map_err(|_| FetchError::Connection)? {
            let bytes = (received.len() + chunk.len()) as u64;
            if bytes > limit {
                return Err(too_many(bytes));
            }
            received.extend_from_slice(&chunk);
            if !recognised && received.len() >= decode::RECOGNISABLE {
                decode::recognise(&received)?;
                recognised = true;
            }
        }
        Ok(received.freeze())
    }
}

/// Where a redirect leads.
fn target(from: &Url, response: &Response) -> Result<Url, FetchError> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.filter(|location| location.len() <= LONGEST_URL);
    let next = location.and_then(|location| from.join(location).ok());
    next.ok_or(FetchError::Redirect("the URL is redirected to nowhere"))
}

/// What went wrong before there was an answer. That a host is not public is known only from deep inside the client.
fn failure(error: &reqwest::Error, host: String) -> FetchError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return FetchError::NotPublic { host };
        }
        cause = inner.source();
    }
    FetchError::Connection
}

fn shown(host: &str) -> String {
    host.chars().take(100).collect()
}

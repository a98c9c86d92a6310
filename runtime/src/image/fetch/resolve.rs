//! From names of hosts to addresses that may be asked. A host is refused when one of its addresses is: a name that
//! points both outside and inside is meant to deceive.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

use super::address::Networks;

/// Where addresses of hosts come from.
pub trait Lookup: Send + Sync {
    /// All addresses of `host`.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) }.boxed()
    }
}

/// A host is unknown or has an address that may not be asked. Which of both is nobody's business.
#[derive(Clone, Copy, Debug, Error)]
#[error("the host has no public address")]
pub struct NotPublic;

/// The resolver of the HTTP client. What it gives is what the client connects to, without another question.
pub(super) struct Checked {
    pub lookup: Arc<dyn Lookup>,
    pub networks: Arc<Networks>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = self.lookup.lookup(name.as_str().to_owned());
        let networks = Arc::clone(&self.networks);
        Box::pin(async move {
            let found = looked_up.await.unwrap_or_default();
            if found.is_empty() || !found.iter().all(|address| networks.admit(*address)) {
                return Err(NotPublic.into());
            }
            // The client puts the URL's port in the place of 0.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

//! The client for replicas: kept connections, HTTP/1.1, no redirects, no proxies.

use std::{net::SocketAddr, time::Duration};

use axum::{body::Body, http::Request};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// A replica that does not accept within this time cannot be reached.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// How long an unused connection is kept; a replica keeps it longer.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Unused connections that are kept to one replica.
const IDLE_CONNECTIONS: usize = 64;

/// The client.
#[derive(Clone, Debug)]
pub struct Upstream(Client<HttpConnector, Body>);

impl Default for Upstream {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIME).pool_max_idle_per_host(IDLE_CONNECTIONS);
        Self(builder.build(connector))
    }
}

impl Upstream {
    /// Sends a request, whose address is that of a replica.
    ///
    /// # Errors
    /// When there is no connection, or no answer on it.
    pub async fn send(&self, request: Request<Body>) -> Result<axum::response::Response, Error> {
        self.0.request(request).await.map(|response| response.map(Body::new))
    }
}

/// The address of a path at a replica.
pub fn uri(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

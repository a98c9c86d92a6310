//! Connections: accepts as many as allowed until told to stop, then lets the open ones finish what they are sending.
//! A connection on which nobody asks anything and no byte moves is closed.

mod arriving;
mod paced;
mod wire;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::auth::Peer;
use super::error::ApiError;
use crate::metrics::Connections;
use arriving::arriving;
use paced::{Pace, Paced};
use wire::Wire;

/// Pause after a failed accept, such as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for open connections to send what they still have after the close.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Headers that the parser takes. What is served is less: see [`super::head`].
const PARSED_HEADERS: usize = 1024;
/// Requests of one HTTP/2 connection at the same time.
const STREAMS: u32 = 256;
/// Bytes of headers of an HTTP/2 request, as its standard counts them. It is about as much as the parser of HTTP/1 takes;
/// beyond it the status is all that can be said, and within it [`super::head`] says more.
const HEADER_BYTES: u32 = 512 * 1024;

/// Threads for connections and streams: one for every four cores. They have little to do beside the model, and of
/// several with little to do each token would wake two.
pub fn threads() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().div_ceil(4))
}

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open at the same time.
    pub count: usize,
    /// Time for the headers of a request, and silence after which a connection is closed.
    pub idle: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { count: 512, idle: Duration::from_secs(60) }
    }
}

/// Serves `router` until `close` is cancelled and the open connections are done.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    metrics: Connections,
    close: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.count));
    loop {
        let accepted = tokio::select! {
            () = close.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    metrics.refused();
                    refuse(stream);
                    continue;
                };
                let open = metrics.opened();
                let serving = connection(stream, peer, router.clone(), limits.idle, close.clone());
                connections.spawn(async move {
                    serving.await;
                    drop((place, open));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(CLOSE_TIME, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut");
    }
}

/// Says that there are too many connections, as far as that can be said without waiting.
fn refuse(stream: TcpStream) {
    // The socket's buffer is empty; a client that has gone already misses nothing.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all(&wire::whole(&ApiError::Connections));
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, idle: Duration, close: CancellationToken) {
    // Each token is a small packet of its own and must not wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let pace = Arc::new(Pace::new());
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_headers(PARSED_HEADERS);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADER_BYTES);
    let asked = Asked { router, peer: peer.ip(), pace: Arc::clone(&pace) };
    let io = TokioIo::new(Wire::new(Paced::new(stream, Arc::clone(&pace)), Arc::clone(&pace)));
    let serving = builder.serve_connection(io, TowerToHyperService::new(asked));
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = pace.idle(idle) => return,
        () = close.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

/// The routes of one connection: they know who asks, and the connection knows that it is in use.
#[derive(Clone)]
struct Asked {
    router: Router,
    peer: IpAddr,
    pace: Arc<Pace>,
}

impl<B> Service<axum::http::Request<B>> for Asked
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: axum::http::Request<B>) -> Self::Future {
        let (pace, version) = (Arc::clone(&self.pace), request.version());
        let asking = Arc::clone(&pace).asking();
        let mut request = request.map(|body| arriving(Body::new(body), &pace));
        request.extensions_mut().insert(Peer(self.peer));
        let answer = self.router.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            drop(asking);
            if pace.left_unread() && version < Version::HTTP_2 {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

//! Connections: a bounded number, each with bounded headers and a bounded time for them; HTTP/1.1 and h2c on one port.
//! One on which nothing is asked for as long is closed, whatever it sends instead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{drain::Life, proxy::client::Peer};

/// Bytes of a request's headers.
const HEADER_BYTES: u32 = 32 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Silence after which an HTTP/2 client is asked whether it lives, and the time for its reply.
const PING: Duration = Duration::from_secs(20);
/// Pause after a failed accept, such as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at the same time; further ones wait to be accepted.
    pub connections: usize,
    /// Time for a request's headers to arrive, and for a connection to ask nothing.
    pub silence: Duration,
}

/// What goes on on one connection.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Requests that came and answers that ended.
    changes: AtomicU64,
    /// Answers that have not ended.
    open: AtomicUsize,
}

impl Activity {
    /// Counts an answer as open until the result is dropped.
    pub fn answer(&self) -> Answering {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }
}

/// An answer that has not ended.
#[derive(Debug)]
pub struct Answering(Activity);

impl Drop for Answering {
    fn drop(&mut self) {
        let Activity(counts) = &self.0;
        counts.changes.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Bounds {
    /// As the flags have it.
    fn default() -> Self {
        Self { connections: 16384, silence: Duration::from_secs(60) }
    }
}

/// Serves `router` within `bounds` until the life closes and the open connections are done or cut.
pub async fn serve(listener: TcpListener, router: Router, life: Life, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepting = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = life.closed().cancelled() => break,
            accepted = accepting => accepted,
        };
        match (accepted, place) {
            (Ok((stream, peer)), Ok(place)) => {
                let peer = Peer(peer.ip());
                connections.spawn(connection((stream, peer), router.clone(), life.clone(), bounds.silence, place));
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The semaphore is never closed.
            (_, Err(_)) => break,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    router: Router,
    life: Life,
    silence: Duration,
    _place: OwnedSemaphorePermit,
) {
    // Each token is a small packet of its own and must not wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(silence).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING.min(silence))
        .keep_alive_timeout(PING.min(silence));
    let activity = Activity::default();
    let counts = activity.clone();
    let counted = router.map_request(move |mut request: Request<_>| {
        counts.0.changes.fetch_add(1, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(counts.clone());
        request
    });
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(counted));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async { tokio::select! { () = life.closed().cancelled() => {}, () = silent(&activity.0, silence) => {} } } => {
            // What has been asked is answered, however long that takes.
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = life.aborted().cancelled() => {
                    tracing::warn!("a connection is cut");
                    Ok(())
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended early");
    }
}

/// Ends when nothing was asked or answered for so long: a connection that were closed at the end of a long answer would
/// take the request with it that its client sends at once. The HTTP layers know only part of it: a connection on which no
/// byte has come is of no version yet, and one of HTTP/2 may send frames for ever.
async fn silent(counts: &Counts, silence: Duration) {
    let mut before = None;
    loop {
        let now = counts.changes.load(Ordering::Relaxed);
        if before == Some(now) && counts.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        before = Some(now);
        tokio::time::sleep(silence).await;
    }
}

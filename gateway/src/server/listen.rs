//! Connections: a bounded number, each with bounded headers and a bounded time for them; HTTP/1.1 and h2c on one port.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
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

use crate::{drain::Life, proxy::client::Peer};

/// Time for a request's headers to arrive, and for a kept connection to stay silent.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// Bytes of a request's headers.
const HEADER_BYTES: u32 = 32 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Silence after which an HTTP/2 client is asked whether it lives, and the time for its reply.
const PING: Duration = Duration::from_secs(20);
/// Pause after a failed accept, such as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on at most `most` connections until the life closes and the open ones are done or cut.
pub async fn serve(listener: TcpListener, router: Router, life: Life, most: usize) {
    let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
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
                let router = router.clone().layer(Extension(Peer(peer.ip())));
                connections.spawn(connection(stream, router, life.clone(), place));
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

async fn connection(stream: TcpStream, router: Router, life: Life, _place: OwnedSemaphorePermit) {
    // Each token is a small packet of its own and must not wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = life.closed().cancelled() => {
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

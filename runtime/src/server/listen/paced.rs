//! A connection that knows when a byte last moved on it, and whether somebody waits for an answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

/// When something last happened.
#[derive(Debug)]
pub struct Pace {
    opened: Instant,
    /// Milliseconds from the opening to the last byte in either direction.
    moved: AtomicU64,
    /// Requests without an answer.
    asking: AtomicUsize,
    /// The last request's body was not read to its end.
    unread: AtomicBool,
}

impl Pace {
    /// Of a connection that opens now.
    pub fn new() -> Self {
        Self {
            opened: Instant::now(),
            moved: AtomicU64::new(0),
            asking: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
        }
    }

    /// A request is being answered until the guard is dropped.
    pub fn asking(self: Arc<Self>) -> Asking {
        self.unread.store(false, Ordering::Relaxed);
        self.asking.fetch_add(1, Ordering::Relaxed);
        Asking(self)
    }

    /// The body of a request was dropped before its end.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client of the last request may still be sending it.
    pub fn left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Resolves once nobody has waited for an answer and no byte has moved for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let quiet = self.quiet();
            if quiet >= limit {
                return;
            }
            sleep(limit.saturating_sub(quiet)).await;
        }
    }

    fn quiet(&self) -> Duration {
        if self.asking.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    fn touch(&self) {
        self.moved.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// A request without an answer.
#[derive(Debug)]
pub struct Asking(Arc<Pace>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.touch();
        self.0.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that reports to a [`Pace`].
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    /// Reports what moves on `stream`.
    pub fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.pace.touch();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.pace.touch();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        self.pace.touch();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(80);

    #[tokio::test]
    async fn a_connection_is_idle_once_nothing_moves_and_nobody_waits() {
        let pace = Arc::new(Pace::new());
        let (mut client, server) = duplex(64);
        let mut server = Paced::new(server, Arc::clone(&pace));
        let asking = Arc::clone(&pace).asking();
        assert!(timeout(2 * LIMIT, pace.idle(LIMIT)).await.is_err());
        drop(asking);
        let moving = async {
            for _ in 0..4 {
                tokio::time::sleep(LIMIT / 2).await;
                client.write_all(b"x").await.unwrap();
                server.read_u8().await.unwrap();
            }
        };
        let (begun, ()) =
            (Instant::now(), tokio::select! { () = pace.idle(LIMIT) => panic!("idle"), () = moving => {} });
        pace.idle(LIMIT).await;
        assert!(begun.elapsed() > 5 * LIMIT / 2, "{:?}", begun.elapsed());
    }
}

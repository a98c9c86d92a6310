//! The last word on a connection. What the parser refuses by itself, without a body, is said in `OpenAI`'s form instead,
//! and a client that is still sending when the answer is complete is read for a while, because closing a socket with
//! unread bytes would throw the answer away before the client has seen it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::paced::Pace;
use crate::server::error::{ApiError, Unreadable};
use crate::server::request_id::{self, RequestId};

/// Bytes that are read and dropped at a time.
const BLOCK: usize = 64 * 1024;

/// How long a client that has its answer may go on sending.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// In all; what nginx calls `lingering_time`, and as long.
    time: Duration,
    /// Without a byte.
    silence: Duration,
    /// Bytes.
    bytes: usize,
}

const PATIENCE: Patience = Patience { time: Duration::from_secs(30), silence: Duration::from_secs(2), bytes: 1 << 30 };

/// A stream to a client.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    pace: Arc<Pace>,
    /// What is said in place of an answer of the parser, and how much of it is sent.
    refusal: Option<(Vec<u8>, usize)>,
    refused: bool,
    patience: Patience,
    linger: Option<Linger>,
}

impl<S> Wire<S> {
    /// `pace` knows whether a body was left unread.
    pub fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace, refusal: None, refused: false, patience: PATIENCE, linger: None }
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    /// Sends our words in place of `bytes`, an answer of the parser.
    fn refuse(&mut self, context: &mut Context<'_>, bytes: &[u8], error: &ApiError) -> Poll<io::Result<usize>> {
        self.refused = true;
        let (words, sent) = self.refusal.get_or_insert_with(|| (whole(error), 0));
        while *sent < words.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &words[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *sent += written,
            }
        }
        self.refusal = None;
        Poll::Ready(Ok(bytes.len()))
    }
}

/// `error` as a whole answer to what never became a request; the connection ends with it.
pub fn whole(error: &ApiError) -> Vec<u8> {
    let (id, status) = (RequestId::of(&HeaderMap::new()), error.status());
    tracing::debug!(request_id = %id, status = status.as_u16(), "refused before it was a request");
    let body = serde_json::to_string(&error.body()).unwrap_or_default();
    let wait = error.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{}: {id}\r\n{wait}connection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        request_id::HEADER,
        body.len()
    )
    .into_bytes()
}

/// Why the parser refuses, when `bytes` are an answer of its own: all others carry the id of their request.
fn parsers_own(bytes: &[u8]) -> Option<ApiError> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let why = match status {
        b"400" => Unreadable::Request,
        b"414" | b"431" => Unreadable::Head,
        _ => return None,
    };
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let named =
        |name: &str| head.lines().any(|line| line.split(':').next().is_some_and(|is| is.eq_ignore_ascii_case(name)));
    (head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0")) && !named(request_id::HEADER.as_str()))
        .then_some(ApiError::Unreadable(why))
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match parsers_own(bytes) {
            Some(error) => self.refuse(context, bytes, &error),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.refused && !this.pace.left_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let patience = this.patience;
        this.linger.get_or_insert_with(|| Linger::new(patience)).poll(&mut this.stream, context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match parts.iter().find(|part| !part.is_empty()).and_then(|first| Some((first, parsers_own(first)?))) {
            Some((first, error)) => self.refuse(context, first, &error),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Reading what nobody needs.
#[derive(Debug)]
struct Linger {
    patience: Patience,
    end: Instant,
    wake: Pin<Box<Sleep>>,
    bytes: usize,
    block: Vec<u8>,
}

impl Linger {
    fn new(patience: Patience) -> Self {
        let (end, wake) = (Instant::now() + patience.time, Box::pin(sleep(patience.silence)));
        Self { patience, end, wake, bytes: 0, block: vec![0; BLOCK] }
    }

    /// Ready once the client has ended too, or is given up.
    fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut block = ReadBuf::new(&mut self.block);
            match Pin::new(&mut *stream).poll_read(context, &mut block) {
                Poll::Ready(Ok(())) if !block.filled().is_empty() => {
                    let now = Instant::now();
                    self.bytes += block.filled().len();
                    if now >= self.end || self.bytes >= self.patience.bytes {
                        return Poll::Ready(());
                    }
                    self.wake.as_mut().reset((now + self.patience.silence).min(self.end));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.wake.as_mut().poll(context),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PARSERS: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn an_answer_of_the_parser_is_said_in_our_form_however_small_the_buffer() {
        let (mut client, server) = duplex(7);
        let mut wire = Wire::new(server, Arc::new(Pace::new()));
        let saying = async {
            wire.write_all(PARSERS).await.unwrap();
            drop(wire);
        };
        let mut seen = String::new();
        let ((), read) = tokio::join!(saying, client.read_to_string(&mut seen));
        read.unwrap();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("\r\nx-request-id: "), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(body.contains("\"code\":\"headers_too_large\""), "{body}");
    }

    #[test]
    fn answers_of_ours_are_left_alone() {
        assert!(parsers_own(PARSERS).is_some());
        for ours in [
            &b"HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert!(parsers_own(ours).is_none(), "{}", String::from_utf8_lossy(ours));
        }
    }

    /// A connection on which a body was left unread, with patience for a test.
    fn unread(server: DuplexStream) -> Wire<DuplexStream> {
        let pace = Arc::new(Pace::new());
        pace.leave_unread();
        let mut wire = Wire::new(server, pace);
        wire.patience =
            Patience { time: Duration::from_millis(300), silence: Duration::from_millis(100), bytes: 1 << 20 };
        wire
    }

    #[tokio::test]
    async fn a_client_that_still_sends_is_read_until_it_has_seen_the_end_and_is_silent() {
        let (mut client, server) = duplex(1024);
        let mut wire = unread(server);
        let sending = async {
            client.write_all(&vec![0; 100_000]).await.unwrap();
            let mut end = Vec::new();
            client.read_to_end(&mut end).await.unwrap();
            client
        };
        let begun = Instant::now();
        let (_client, closed) = tokio::join!(sending, wire.shutdown());
        closed.unwrap();
        assert!(begun.elapsed() >= wire.patience.silence);
    }

    #[tokio::test]
    async fn whoever_sends_for_ever_is_given_up() {
        let (mut client, server) = duplex(16);
        let mut wire = unread(server);
        let (begun, patience) = (Instant::now(), wire.patience);
        let drip = async {
            loop {
                tokio::time::sleep(patience.silence / 4).await;
                client.write_all(b"x").await.unwrap();
            }
        };
        tokio::select! { () = drip => {} closed = wire.shutdown() => closed.unwrap() }
        assert!(begun.elapsed() >= patience.time);
        let (mut client, server) = duplex(1 << 16);
        let mut wire = unread(server);
        let much = vec![0; 1 << 16];
        let flood = async { while client.write_all(&much).await.is_ok() {} };
        tokio::select! { () = flood => {} closed = wire.shutdown() => closed.unwrap() }
        assert!(wire.linger.unwrap().bytes >= patience.bytes);
    }

    #[tokio::test]
    async fn a_client_that_was_read_to_the_end_is_not_waited_for() {
        let (_client, server) = duplex(16);
        Wire::new(server, Arc::new(Pace::new())).shutdown().now_or_never().unwrap().unwrap();
    }
}

//! A request's body that tells its connection when it is dropped before its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Error;
use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::Bytes;
use futures::Stream;

use super::paced::Pace;

/// `body` as it was, but `pace` is told.
pub fn arriving(body: Body, pace: &Arc<Pace>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::from_stream(Arriving { chunks: body.into_data_stream(), ended: false, pace: Arc::clone(pace) })
}

/// A body on its way.
struct Arriving {
    chunks: BodyDataStream,
    ended: bool,
    pace: Arc<Pace>,
}

impl Stream for Arriving {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(Pin::new(&mut self.chunks).poll_next(context));
        self.ended |= chunk.is_none();
        Poll::Ready(chunk)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.ended {
            self.pace.leave_unread();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn body() -> Body {
        Body::from_stream(futures::stream::iter(["a", "b"].map(|chunk| Ok::<_, Error>(Bytes::from(chunk)))))
    }

    #[tokio::test]
    async fn what_is_not_read_to_its_end_is_told() {
        for (chunks, left) in [(0, true), (1, true), (3, false)] {
            let pace = Arc::new(Pace::new());
            let mut read = arriving(body(), &pace).into_data_stream();
            for _ in 0..chunks {
                read.next().await;
            }
            drop(read);
            assert_eq!(pace.left_unread(), left, "{chunks}");
        }
        let pace = Arc::new(Pace::new());
        drop(arriving(Body::empty(), &pace));
        assert!(!pace.left_unread());
    }
}

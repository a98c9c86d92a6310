//! Request bodies: each is held once, bounded in size and in the time that it may take to arrive, and all of them
//! together in bytes.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::GatewayError;

/// Bytes are counted in units of this size.
const UNIT: usize = 1024;

/// The bounds.
#[derive(Debug)]
pub struct Bodies {
    units: Arc<Semaphore>,
    /// Of `units`, what bodies of streams may take that have begun.
    kept: Arc<Semaphore>,
    all: usize,
    largest: usize,
    time: Duration,
}

/// A body, and the room that it takes until it is dropped.
#[derive(Clone, Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    #[expect(dead_code, reason = "held for its drop")]
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// A body that is kept while its answer is streamed, and its share of the room for such bodies.
#[derive(Debug)]
pub struct Kept {
    held: Held,
    #[expect(dead_code, reason = "held for its drop")]
    share: OwnedSemaphorePermit,
}

impl Kept {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.held.bytes
    }
}

impl Bodies {
    /// Room for `all` bytes together and for `largest` in one body, which may take `time` to arrive.
    pub fn new(all: usize, largest: usize, time: Duration) -> Self {
        let all = units(all.max(largest));
        let (units, kept) = (Semaphore::new(all as usize), Semaphore::new(all as usize / 2));
        Self { units: Arc::new(units), kept: Arc::new(kept), all: all as usize, largest, time }
    }

    /// Bytes of the bodies that are held now.
    pub fn held(&self) -> usize {
        self.all.saturating_sub(self.units.available_permits()) * UNIT
    }

    /// Keeps a body after its answer has begun; `None` when such bodies take half of the room already, because the other
    /// half is for what arrives.
    pub fn keep(&self, held: &Held) -> Option<Kept> {
        let share = Arc::clone(&self.kept).try_acquire_many_owned(units(held.bytes.len())).ok()?;
        Some(Kept { held: held.clone(), share })
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`GatewayError`] when it is too long or too slow, breaks off, or there is no room for it.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held, GatewayError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > self.largest) {
            return Err(GatewayError::BodyTooLarge { limit: self.largest });
        }
        let reading = self.collect(announced.unwrap_or_default(), body);
        match tokio::time::timeout(self.time, reading).await {
            Ok(read) => read,
            Err(_) => Err(GatewayError::BodyTimeout { seconds: self.time.as_secs() }),
        }
    }

    async fn collect(&self, announced: usize, body: Body) -> Result<Held, GatewayError> {
        let mut room = self.room(announced)?;
        let mut taken = announced;
        let mut stream = body.into_data_stream();
        let Some(first) = stream.next().await else {
            return Ok(Held { bytes: Bytes::new(), room: room.map(Arc::new) });
        };
        let first = first.map_err(|_| GatewayError::BodyBroken)?;
        // A small body usually comes in one piece, which needs no copy.
        let mut whole = BytesMut::new();
        let mut only = Some(first);
        loop {
            let next = stream.next().await.transpose().map_err(|_| GatewayError::BodyBroken)?;
            let length = whole.len() + only.as_ref().map_or(0, Bytes::len) + next.as_ref().map_or(0, Bytes::len);
            if length > self.largest {
                return Err(GatewayError::BodyTooLarge { limit: self.largest });
            }
            if length > taken {
                // Of unknown length: room is taken as it comes.
                let more = (length - taken).next_multiple_of(UNIT);
                merge(&mut room, self.room(more)?);
                taken += more;
            }
            let Some(next) = next else { break };
            if let Some(first) = only.take() {
                whole.reserve(announced.max(length));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&next);
        }
        Ok(Held { bytes: only.unwrap_or_else(|| whole.freeze()), room: room.map(Arc::new) })
    }

    fn room(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, GatewayError> {
        if bytes == 0 {
            return Ok(None);
        }
        let room = Arc::clone(&self.units).try_acquire_many_owned(units(bytes));
        room.map(Some).map_err(|_| GatewayError::BodiesFull)
    }
}

fn merge(room: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (room.as_mut(), more) {
        (Some(room), Some(more)) => room.merge(more),
        (None, more) => *room = more,
        (Some(_), None) => {}
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(16 * UNIT, 8 * UNIT, Duration::from_secs(5))
    }

    fn pieces(pieces: &[usize]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|length| Ok::<_, std::io::Error>(vec![b'x'; *length])).collect();
        Body::from_stream(stream::iter(pieces))
    }

    fn length(bytes: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, bytes.into())])
    }

    #[tokio::test]
    async fn a_body_takes_room_until_it_is_dropped() {
        let bodies = bodies();
        for sizes in [vec![], vec![10], vec![3000, 3000, 500]] {
            let held = bodies.read(&HeaderMap::new(), pieces(&sizes)).await.unwrap();
            assert_eq!(held.bytes.len(), sizes.iter().sum::<usize>());
            assert!(bodies.held() >= held.bytes.len() && bodies.held() < held.bytes.len() + 3 * UNIT);
            drop(held);
            assert_eq!(bodies.held(), 0);
        }
    }

    #[tokio::test]
    async fn too_long_bodies_are_refused_announced_or_not() {
        let bodies = bodies();
        let large = GatewayError::BodyTooLarge { limit: 8 * UNIT };
        assert_eq!(bodies.read(&length(8 * UNIT + 1), Body::empty()).await.unwrap_err(), large);
        assert_eq!(bodies.read(&HeaderMap::new(), pieces(&[8 * UNIT, 1])).await.unwrap_err(), large);
        assert_eq!(bodies.held(), 0);
    }

    #[tokio::test]
    async fn when_all_room_is_taken_the_next_is_refused() {
        let bodies = bodies();
        let nothing = HeaderMap::new();
        let all =
            futures::join!(bodies.read(&nothing, pieces(&[8 * UNIT])), bodies.read(&nothing, pieces(&[8 * UNIT])));
        assert!(all.0.is_ok() && all.1.is_ok());
        assert_eq!(bodies.read(&length(1), pieces(&[1])).await.unwrap_err(), GatewayError::BodiesFull);
        drop(all);
        assert!(bodies.read(&length(1), pieces(&[1])).await.is_ok());
    }

    #[tokio::test]
    async fn bodies_of_streams_take_half_of_the_room_and_no_more() {
        let bodies = bodies();
        let held = bodies.read(&HeaderMap::new(), pieces(&[5 * UNIT])).await.unwrap();
        let kept = bodies.keep(&held).unwrap();
        assert_eq!(kept.bytes().len(), 5 * UNIT);
        assert!(bodies.keep(&held).is_none(), "8 of 16 units are for streams");
        drop(held);
        assert!(bodies.held() >= 5 * UNIT, "it is in memory still");
        drop(kept);
        assert_eq!(bodies.held(), 0);
        let held = bodies.read(&HeaderMap::new(), pieces(&[8 * UNIT])).await.unwrap();
        assert!(bodies.keep(&held).is_some());
    }

    #[tokio::test]
    async fn a_body_that_never_ends_gives_its_room_back() {
        let bodies = Bodies::new(16 * UNIT, 8 * UNIT, Duration::from_millis(50));
        let endless = stream::iter([Ok::<_, std::io::Error>("x")]).chain(stream::pending());
        let error = bodies.read(&length(4096), Body::from_stream(endless)).await.unwrap_err();
        assert_eq!((error, bodies.held()), (GatewayError::BodyTimeout { seconds: 0 }, 0));
        let broken = stream::iter([Ok("x"), Err(std::io::Error::other("gone"))]);
        let error = bodies.read(&length(4096), Body::from_stream(broken)).await.unwrap_err();
        assert_eq!((error, bodies.held()), (GatewayError::BodyBroken, 0));
    }
}

//! How much the server takes on: a number of requests from their arrival to their last byte, and a
//! number of body bytes from their arrival until the pictures in them are prepared. Both bound
//! memory; the engine's own queue bounds only what is already prepared.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::Snapshot;

/// Bodies held at once, as a multiple of the largest body.
const BODIES: usize = 4;
/// Body bytes are counted in units of this size.
const UNIT: usize = 1024;

/// The bounds.
#[derive(Debug)]
pub struct Admission {
    requests: Arc<Semaphore>,
    size: u32,
    body_units: Arc<Semaphore>,
    largest_body: usize,
}

/// One admitted request; the place is free again when this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Room for one body; free again when this is dropped.
#[derive(Debug)]
pub struct BodyRoom(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    /// Room for `requests` requests and for four bodies of `largest_body` bytes.
    pub fn new(requests: usize, largest_body: usize) -> Self {
        let size = u32::try_from(requests).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self {
            requests: Arc::new(Semaphore::new(size as usize)),
            size,
            body_units: Arc::new(Semaphore::new(BODIES * units(largest_body) as usize)),
            largest_body,
        }
    }

    /// A place, or `None` when all are taken.
    pub fn try_enter(&self) -> Option<Place> {
        Arc::clone(&self.requests).try_acquire_owned().ok().map(Place)
    }

    /// Waits until a body of `bytes`, or of unknown length, may be read.
    pub async fn body_room(&self, bytes: Option<usize>) -> Option<BodyRoom> {
        let bytes = bytes.unwrap_or(self.largest_body).min(self.largest_body);
        let room = Arc::clone(&self.body_units).acquire_many_owned(units(bytes)).await;
        room.ok().map(BodyRoom)
    }

    /// Resolves when no request is left. Call it only once no new one can enter.
    pub async fn emptied(&self) {
        // An error would mean that the semaphore is closed, which never happens.
        let _ = self.requests.acquire_many(self.size).await;
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).max(1)
}

/// Seconds after which a refused client may expect a place: those before it and itself, at the
/// rate at which requests complete; between 1 and 60, and 1 while the rate is unknown.
pub fn retry_after_seconds(now: &Snapshot) -> u64 {
    let rate = now.completions_per_second.filter(|rate| *rate > 0.0);
    rate.map_or(1, |rate| ((now.waiting as f64 + 1.0) / rate).ceil().clamp(1.0, 60.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_after_its_drop() {
        let admission = Admission::new(1, 1024);
        let place = admission.try_enter().unwrap();
        assert!(admission.try_enter().is_none());
        drop(place);
        admission.emptied().await;
        assert!(admission.try_enter().is_some());
    }

    #[tokio::test]
    async fn a_fifth_large_body_waits() {
        let admission = Admission::new(8, 10_000);
        let mut rooms = Vec::new();
        for _ in 0..BODIES {
            rooms.push(admission.body_room(None).await.unwrap());
        }
        assert!(admission.body_units.available_permits() == 0);
        rooms.pop();
        assert!(admission.body_room(Some(1)).await.is_some());
    }

    #[test]
    fn the_wait_comes_from_the_measured_rate() {
        let mut now = Snapshot { waiting: 9, ..Snapshot::default() };
        assert_eq!(retry_after_seconds(&now), 1);
        now.completions_per_second = Some(4.0);
        assert_eq!(retry_after_seconds(&now), 3);
        now.completions_per_second = Some(0.001);
        assert_eq!(retry_after_seconds(&now), 60);
    }
}

//! How much the server takes on: a number of requests from their arrival to their last byte, and a
//! number of body bytes from their arrival until the pictures in them are prepared. Both bound
//! memory; the engine's own queue bounds only what is already prepared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::fair::ClientId;

/// Bodies held at once, as a multiple of the largest body.
const BODIES: usize = 4;
/// Body bytes are counted in units of this size.
const UNIT: usize = 1024;
/// One place in so many is for clients that have none.
const RESERVED: u32 = 16;

/// The bounds.
#[derive(Debug)]
pub struct Admission {
    requests: Arc<Semaphore>,
    size: u32,
    clients: Arc<Clients>,
    body_units: Arc<Semaphore>,
    largest_body: usize,
}

/// How many places each client has; those without are absent.
type Clients = Mutex<HashMap<ClientId, u32>>;

/// One admitted request; the place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    client: ClientId,
    clients: Arc<Clients>,
    /// Held for its drop, which comes after the client's count is lower.
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Whose it is.
    pub fn client(&self) -> ClientId {
        self.client
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = clients.get_mut(&self.client) {
            *places -= 1;
            if *places == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Room for one body; free again when this is dropped.
#[derive(Debug)]
pub struct BodyRoom(OwnedSemaphorePermit);

impl Admission {
    /// Room for `requests` requests and for four bodies of `largest_body` bytes.
    pub fn new(requests: usize, largest_body: usize) -> Self {
        let size = u32::try_from(requests).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self {
            requests: Arc::new(Semaphore::new(size as usize)),
            size,
            clients: Arc::default(),
            body_units: Arc::new(Semaphore::new(BODIES * units(largest_body) as usize)),
            largest_body,
        }
    }

    /// A place for `client`, or `None` when all are taken, or all but those that are for others.
    pub fn try_enter(&self, client: ClientId) -> Option<Place> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = (self.size / RESERVED) as usize;
        if clients.contains_key(&client) && self.requests.available_permits() <= reserved {
            return None;
        }
        let place = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        *clients.entry(client).or_default() += 1;
        drop(clients);
        Some(Place { client, clients: Arc::clone(&self.clients), _permit: place })
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

impl BodyRoom {
    /// Gives back what a body of `bytes` does not need.
    pub fn shrink(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(spare));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::of("test", name.as_bytes())
    }

    #[tokio::test]
    async fn a_place_is_free_again_after_its_drop() {
        let admission = Admission::new(1, 1024);
        let place = admission.try_enter(client("a")).unwrap();
        assert!(admission.try_enter(client("b")).is_none());
        drop(place);
        admission.emptied().await;
        assert!(admission.try_enter(client("b")).is_some());
    }

    #[test]
    fn the_last_places_are_for_those_who_have_none() {
        let admission = Admission::new(64, 1024);
        let mut greedy: Vec<_> = std::iter::from_fn(|| admission.try_enter(client("greedy"))).collect();
        assert_eq!(greedy.len(), 60);
        let modest: Vec<_> = (0..4).map(|n| admission.try_enter(client(&n.to_string())).unwrap()).collect();
        assert!(admission.try_enter(client("late")).is_none());
        drop(modest);
        assert!(admission.try_enter(client("greedy")).is_none());
        greedy.pop();
        assert!(admission.try_enter(client("greedy")).is_some());
        drop(greedy);
        assert!(admission.clients.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_fifth_large_body_waits() {
        let admission = Admission::new(8, 10_000);
        let mut rooms = Vec::new();
        for _ in 0..BODIES {
            rooms.push(admission.body_room(None).await.unwrap());
        }
        assert!(admission.body_units.available_permits() == 0);
        rooms[0].shrink(9_000);
        assert!(admission.body_room(Some(1)).await.is_some());
    }
}

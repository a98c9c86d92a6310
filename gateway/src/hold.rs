//! The requests of one model that wait for a replica: bounded in count and bytes, oldest first, but for a short time
//! one before it that the free replica suits better. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::request::affinity::Affinity;

#[cfg(test)]
mod tests;

/// How long others may go before the oldest because the replica that is free has their pictures, at least. Without this,
/// a model whose replicas are all busy would see every picture anew at whichever is free first, and stay busy with that.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same in times what it takes lately to get a replica: a queue that got long for a moment would otherwise have none
/// but impatient ones, each answered by a replica that does not know its picture, and never get short again.
const PATIENCE_IN_USUAL_WAITS: f64 = 2.0;
/// The usual wait is that of about so many.
const USUAL_OF: f64 = 32.0;
/// How many of the oldest are looked at for that.
const LOOK_AHEAD: usize = 64;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub count: usize,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// How long each.
    pub wait: Duration,
}

impl Bounds {
    /// What one of `gateways` takes of it.
    #[must_use]
    pub fn share(self, gateways: usize) -> Self {
        let gateways = gateways.max(1);
        Self { count: self.count.div_ceil(gateways), bytes: self.bytes.div_ceil(gateways as u64), ..self }
    }
}

/// A request's place: when it arrived, and a number that tells apart those of the same moment. One that comes back
/// after a failed attempt has the place that it had.
pub type Place = (Duration, u64);

/// One that waits.
#[derive(Debug)]
pub struct Waiter<T> {
    /// Bytes of its body.
    pub bytes: u64,
    /// Which replica would answer best.
    pub affinity: Option<Affinity>,
    /// Replicas that have failed it.
    pub tried: Vec<String>,
    /// Since when it waits.
    pub since: Duration,
    /// How it is told.
    pub tell: T,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: BTreeMap<Place, Waiter<T>>,
    bytes: u64,
    /// Seconds that one waits lately until it gets a replica.
    usual: f64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), bytes: 0, usual: 0.0 }
    }
}

impl<T> Queue<T> {
    /// Whether one more of `bytes` may wait.
    pub fn has_room(&self, bytes: u64, bounds: &Bounds) -> bool {
        self.waiting.len() < bounds.count && self.bytes.saturating_add(bytes) <= bounds.bytes
    }

    /// Lets a request wait at its place.
    pub fn put(&mut self, place: Place, waiter: Waiter<T>) {
        self.bytes += waiter.bytes;
        if let Some(before) = self.waiting.insert(place, waiter) {
            self.bytes -= before.bytes;
        }
    }

    /// Whose turn it is: the oldest that a free replica `suits`, unless the oldest of all has lost its patience or none
    /// is suited.
    pub fn turn(&self, now: Duration, suits: impl Fn(&Waiter<T>) -> bool) -> Option<(Place, &Waiter<T>)> {
        let (oldest, waiter) = self.waiting.first_key_value()?;
        let patience = PATIENCE.as_secs_f64().max(PATIENCE_IN_USUAL_WAITS * self.usual);
        let patient = now.saturating_sub(oldest.0).as_secs_f64() < patience;
        let suited = self.waiting.iter().take(LOOK_AHEAD).find(|(_, waiter)| patient && suits(waiter));
        let (place, waiter) = suited.unwrap_or((oldest, waiter));
        Some((*place, waiter))
    }

    /// One gets a replica after so long a wait.
    pub fn seated(&mut self, waited: Duration) {
        self.usual += (waited.as_secs_f64() - self.usual) / USUAL_OF;
    }

    /// Takes out the one of a place; `None` when it is there no more.
    pub fn remove(&mut self, place: Place) -> Option<Waiter<T>> {
        let waiter = self.waiting.remove(&place)?;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    /// Takes out all.
    pub fn take_all(&mut self) -> Vec<Waiter<T>> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// How many are before a place that is taken; `None` when it is not.
    pub fn ahead_of(&self, place: Place) -> Option<usize> {
        self.waiting.contains_key(&place).then(|| self.waiting.range(..place).count())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of the bodies that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

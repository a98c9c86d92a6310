//! One model at the desk: its replicas and the requests that wait for them. Pure: time is a parameter, and whoever is
//! to be told something is handed back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Refusal, rate::Rate};
use crate::{
    balance::{Endpoint, Pods},
    hold::{Bounds, Place, Queue, Waiter},
    request::affinity::Affinity,
    routes::{Route, Standing},
};

/// Seconds told to those that are refused while nothing is known of how long a model takes to start.
const UNKNOWN_WAKE_SECONDS: u64 = 10;
/// Longest time told to those that are refused, in seconds.
const MOST_RETRY_SECONDS: u64 = 60;

/// A replica that a request was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Name of the pod.
    pub pod: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What happens to a request that asks for a replica.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It goes there at once.
    Seated(Seat),
    /// It waits; it is told later.
    Waits,
}

/// One that waited and is told now.
pub(super) type Told<T> = (T, Result<Seat, Refusal>);

/// One model.
#[derive(Debug)]
pub(super) struct Line<T> {
    route: Arc<Route>,
    pods: Pods,
    queue: Queue<T>,
    /// Requests that were given to a replica.
    released: Rate,
    /// Since when requests wait though there is no replica.
    sleepless_since: Option<Duration>,
    /// How long it took last time until one could go.
    wake_took: Option<Duration>,
    /// It is not asked again before that the model be woken.
    ask_again: Duration,
}

/// What waiting and refused requests are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// How many are before it.
    pub ahead: usize,
    /// There is no replica: one starts.
    pub waking: bool,
    /// Seconds until it is its turn, where that can be told.
    pub eta_seconds: Option<u64>,
}

impl<T> Line<T> {
    pub(super) fn new(route: Arc<Route>, endpoints: &[Endpoint]) -> Self {
        let mut pods = Pods::default();
        pods.update(endpoints);
        Self {
            route,
            pods,
            queue: Queue::default(),
            released: Rate::default(),
            sleepless_since: None,
            wake_took: None,
            ask_again: Duration::ZERO,
        }
    }

    pub(super) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// A request asks for a replica. One that comes `back` after a failed attempt was let in before, so it is never
    /// refused for lack of room.
    pub(super) fn enter(
        &mut self,
        (place, back): (Place, bool),
        bounds: &Bounds,
        waiter: Waiter<T>,
        now: Duration,
    ) -> Result<Entry, Refusal> {
        if self.queue.is_empty()
            && let Some(seat) = self.seat(waiter.affinity, &waiter.tried, now)
        {
            self.queue.seated(Duration::ZERO);
            return Ok(Entry::Seated(seat));
        }
        self.hopeless().map_or(Ok(()), Err)?;
        if !back && !self.queue.has_room(waiter.bytes, bounds) {
            return Err(Refusal::QueueFull {
                held: self.queue.len(),
                waking: self.pods.ready() == 0,
                retry_after_seconds: self.retry_after(now),
            });
        }
        self.queue.put(place, waiter);
        if self.pods.ready() == 0 {
            self.sleepless_since.get_or_insert(now);
        }
        Ok(Entry::Waits)
    }

    /// A replica with room that was not tried, if nobody waits for it.
    pub(super) fn spare_seat(&mut self, affinity: Option<Affinity>, tried: &[String], now: Duration) -> Option<Seat> {
        if !self.queue.is_empty() || !self.pods.has_other(self.route.window, tried, now) {
            return None;
        }
        self.seat(affinity, tried, now)
    }

    /// Why no replica will ever take a request, as things stand.
    fn hopeless(&self) -> Option<Refusal> {
        if self.pods.ready() > 0 {
            return None;
        }
        match &self.route.standing {
            Standing::Awake | Standing::Asleep => None,
            Standing::Off => Some(Refusal::SwitchedOff),
            Standing::Failed { reason, message } => {
                Some(Refusal::CannotStart { reason: reason.clone(), message: message.clone() })
            }
        }
    }

    fn seat(&mut self, affinity: Option<Affinity>, tried: &[String], now: Duration) -> Option<Seat> {
        let (pod, address) = self.pods.take(self.route.window, affinity, tried, now)?;
        self.released.note(now);
        if let Some(since) = self.sleepless_since.take() {
            self.wake_took = Some(now.saturating_sub(since));
        }
        Some(Seat { pod, address })
    }

    /// Gives replicas with room to those that wait, in their turn; or tells them why none will come.
    pub(super) fn release(&mut self, now: Duration) -> Vec<Told<T>> {
        if let Some(refusal) = self.hopeless() {
            self.sleepless_since = None;
            return self.queue.take_all().into_iter().map(|waiter| (waiter.tell, Err(refusal.clone()))).collect();
        }
        let mut told = Vec::new();
        let window = self.route.window;
        while self.pods.has_room(window, now) {
            let suits = |waiter: &Waiter<T>| self.pods.suits(window, waiter.affinity, now);
            let Some((place, waiter)) = self.queue.turn(now, suits) else { break };
            let (affinity, tried) = (waiter.affinity, waiter.tried.clone());
            let Some(seat) = self.seat(affinity, &tried, now) else { break };
            let Some(waiter) = self.queue.remove(place) else { break };
            self.queue.seated(now.saturating_sub(waiter.since));
            told.push((waiter.tell, Ok(seat)));
        }
        told
    }

    /// The model is gone: nobody waits any longer.
    pub(super) fn close(mut self) -> Vec<Told<T>> {
        self.queue.take_all().into_iter().map(|waiter| (waiter.tell, Err(Refusal::Gone))).collect()
    }

    /// One that waited has gone, or has waited too long.
    pub(super) fn leave(&mut self, place: Place) -> bool {
        let left = self.queue.remove(place).is_some();
        if self.queue.is_empty() {
            self.sleepless_since = None;
        }
        left
    }

    pub(super) fn update_route(&mut self, route: Arc<Route>) {
        self.route = route;
    }

    pub(super) fn update_endpoints(&mut self, endpoints: &[Endpoint], now: Duration) {
        self.pods.update(endpoints);
        if self.pods.ready() == 0 && !self.queue.is_empty() {
            self.sleepless_since.get_or_insert(now);
        }
    }

    pub(super) fn give_back(&mut self, pod: &str, answered: bool, now: Duration) {
        self.pods.give_back(pod, answered, now);
    }

    pub(super) fn block(&mut self, pod: &str, until: Duration) {
        self.pods.block(pod, until);
    }

    /// What one that waits is told; `None` when it waits no more.
    pub(super) fn outlook(&self, place: Place, now: Duration) -> Option<Outlook> {
        let ahead = self.queue.ahead_of(place)?;
        let waking = self.pods.ready() == 0;
        let eta_seconds = if waking { self.wake_left(now) } else { self.turn_comes_in(ahead, now) };
        Some(Outlook { ahead, waking, eta_seconds })
    }

    fn wake_left(&self, now: Duration) -> Option<u64> {
        let begun = self.sleepless_since.unwrap_or(now);
        let left = self.wake_took?.saturating_sub(now.saturating_sub(begun));
        Some(left.as_secs_f64().ceil().max(1.0) as u64)
    }

    fn turn_comes_in(&self, ahead: usize, now: Duration) -> Option<u64> {
        let rate = self.released.per_second(now)?;
        Some(((ahead as f64 + 1.0) / rate).ceil().max(1.0) as u64)
    }

    /// Seconds after which a refused client may expect a place.
    pub(super) fn retry_after(&self, now: Duration) -> u64 {
        let seconds = if self.pods.ready() == 0 {
            self.wake_left(now).unwrap_or(UNKNOWN_WAKE_SECONDS)
        } else {
            self.turn_comes_in(self.queue.len(), now).unwrap_or(1)
        };
        seconds.clamp(1, MOST_RETRY_SECONDS)
    }

    /// When the model is to be woken: `None` when it needs no waking.
    pub(super) fn wake_due(&self) -> Option<Duration> {
        let needed = !self.queue.is_empty() && self.route.standing == Standing::Asleep;
        needed.then_some(self.ask_again)
    }

    /// It was asked that the model be woken; that is not repeated before `again`.
    pub(super) fn asked_to_wake(&mut self, again: Duration) {
        self.ask_again = again;
    }

    /// How long it took last time until a replica could take what waited.
    pub(super) fn wake_took(&self) -> Option<Duration> {
        self.wake_took
    }

    /// When a replica that is closed for a while opens again though nothing happens; only while somebody waits.
    pub(super) fn next_opening(&self, now: Duration) -> Option<Duration> {
        if self.queue.is_empty() { None } else { self.pods.next_opening(now) }
    }

    /// Requests that wait, and that replicas answer.
    pub(super) fn counts(&self) -> (usize, u32) {
        (self.queue.len(), self.pods.in_flight())
    }
}

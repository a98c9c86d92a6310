//! Which replica takes a request: the least busy one, or, for a request with pictures, the one that has most likely
//! seen them already. Pure.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998) ranks the pods for an affinity, so every gateway ranks them alike
//! and a pod that comes or goes moves only its own share. Bounded loads (Mirrokni et al., 2018) keep one popular picture
//! from burying a pod: for its pictures' sake no pod has more than 1.25 times the mean in flight, nor got more than that
//! lately, neither in requests nor in time (`recent`). What is in flight is bounded in whole requests, rounded up, so
//! it says little while few are; what came lately has fractions. Bounds of several gateways add up to one of the same
//! factor, though none knows of another.

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, time::Duration};

use recent::Recent;

use crate::request::affinity::{Affinity, mix};

mod recent;
#[cfg(test)]
mod tests;

/// A replica that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the pod.
    pub pod: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes new requests: ready, and not on its way out.
    pub ready: bool,
}

/// What this gateway knows of the pods of one model.
#[derive(Debug, Default)]
pub struct Pods {
    all: BTreeMap<String, Pod>,
    turn: u64,
    /// Until when [`Recent::computing`] is told.
    told: Duration,
}

#[derive(Clone, Debug)]
struct Pod {
    address: SocketAddr,
    ready: bool,
    in_flight: u32,
    recent: Recent,
    /// It said that it is full, or did not answer: nothing new until then.
    blocked_until: Option<Duration>,
}

impl Pod {
    fn open(&self, now: Duration) -> bool {
        self.ready && self.blocked_until.is_none_or(|until| until <= now)
    }
}

/// Rendezvous: the least is the best.
fn rank(key: u64, name: &str) -> Reverse<u64> {
    Reverse(mix(key, name.as_bytes()))
}

impl Pods {
    /// Takes over what the cluster says. A pod that is gone is kept while it still answers something.
    pub fn update(&mut self, endpoints: &[Endpoint]) {
        // A pod that comes has had as much as the others: it gets its own share at once, and not theirs.
        let recent = self.mean();
        for pod in self.all.values_mut() {
            pod.ready = false;
        }
        for endpoint in endpoints {
            let new = Pod { address: endpoint.address, ready: false, in_flight: 0, recent, blocked_until: None };
            let pod = self.all.entry(endpoint.pod.clone()).or_insert_with(|| new.clone());
            if pod.address != endpoint.address {
                *pod = Pod { in_flight: pod.in_flight, ..new };
            }
            pod.ready = endpoint.ready;
        }
        self.all.retain(|name, pod| pod.in_flight > 0 || endpoints.iter().any(|e| e.pod == *name));
    }

    /// How many take new requests, blocked ones included.
    pub fn ready(&self) -> usize {
        self.all.values().filter(|pod| pod.ready).count()
    }

    /// Requests in flight at all pods.
    pub fn in_flight(&self) -> u32 {
        self.all.values().map(|pod| pod.in_flight).sum()
    }

    /// Chooses a pod with fewer than `window` requests in flight and counts the request on it; one of `tried` only
    /// when there is no other. `None` when no pod has room.
    pub fn take(
        &mut self,
        window: u32,
        affinity: Option<Affinity>,
        tried: &[String],
        now: Duration,
    ) -> Option<(String, SocketAddr)> {
        self.tell(now);
        let name = self.choose(window, affinity, tried, now)?;
        recent::given(self.all.values_mut().map(|pod| &mut pod.recent));
        let pod = self.all.get_mut(&name)?;
        pod.in_flight += 1;
        pod.recent.requests += 1.0;
        Some((name, pod.address))
    }

    /// Whether a pod that is none of `tried` has room.
    pub fn has_other(&self, window: u32, tried: &[String], now: Duration) -> bool {
        self.all.iter().any(|(name, pod)| pod.open(now) && pod.in_flight < window && !tried.contains(name))
    }

    fn choose(&mut self, window: u32, affinity: Option<Affinity>, tried: &[String], now: Duration) -> Option<String> {
        let roomy = |pod: &Pod| pod.open(now) && pod.in_flight < window;
        let mut able: Vec<_> = self.all.iter().filter(|(_, pod)| roomy(pod)).collect();
        if able.iter().any(|(name, _)| !tried.contains(name)) {
            able.retain(|(name, _)| !tried.contains(name));
        }
        let (bound, mean) = (self.bound(), self.mean());
        if let Some(Affinity(key)) = affinity {
            let below = able.iter().filter(|(_, pod)| pod.in_flight < bound && pod.recent.may_take(mean));
            if let Some((name, _)) = below.min_by_key(|(name, _)| rank(key, name)) {
                return Some((*name).clone());
            }
        }
        // Equally busy pods take turns, or every gateway would begin with the same one.
        let turn = self.turn;
        let chosen = able.into_iter().min_by_key(|(name, pod)| (pod.in_flight, rank(turn, name)));
        let name = chosen.map(|(name, _)| name.clone());
        self.turn = self.turn.wrapping_add(1);
        name
    }

    /// Whether any pod takes one more.
    pub fn has_room(&self, window: u32, now: Duration) -> bool {
        self.all.values().any(|pod| pod.open(now) && pod.in_flight < window)
    }

    /// Whether the pod that would answer best has room; without affinity any pod would.
    pub fn suits(&self, window: u32, affinity: Option<Affinity>, now: Duration) -> bool {
        let Some(Affinity(key)) = affinity else { return true };
        let mean = self.mean();
        let open = self.all.iter().filter(|(_, pod)| pod.open(now) && pod.recent.may_take(mean));
        open.min_by_key(|(name, _)| rank(key, name)).is_some_and(|(_, pod)| pod.in_flight < window)
    }

    /// What the pods that take new requests got lately, at the mean.
    fn mean(&self) -> Recent {
        Recent::mean(self.all.values().filter(|pod| pod.ready).map(|pod| pod.recent))
    }

    /// Time passes until `now` with what is in flight.
    fn tell(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.told);
        self.told = self.told.max(now);
        for pod in self.all.values_mut() {
            pod.recent.pass(passed, pod.in_flight);
        }
    }

    /// A pod below this takes one more without exceeding 1.25 times the mean, rounded up.
    fn bound(&self) -> u32 {
        let ready = self.all.values().filter(|pod| pod.ready);
        let (count, total) = ready.fold((0, 0), |(count, total), pod| (count + 1, total + pod.in_flight));
        (5 * (total + 1)).div_ceil(4 * count.max(1))
    }

    /// A request on `pod` has ended. It was `answered` when that shows that the pod has room again.
    pub fn give_back(&mut self, pod: &str, answered: bool, now: Duration) {
        self.tell(now);
        let Some(entry) = self.all.get_mut(pod) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if answered {
            entry.blocked_until = None;
        }
        if entry.in_flight == 0 && !entry.ready && entry.blocked_until.is_none() {
            // It may be gone for good; if it is not, the next update knows its address.
            self.all.remove(pod);
        }
    }

    /// Sends nothing new to `pod` until then.
    pub fn block(&mut self, pod: &str, until: Duration) {
        if let Some(pod) = self.all.get_mut(pod) {
            pod.blocked_until = pod.blocked_until.max(Some(until));
        }
    }

    /// When the next blocked pod may be asked again.
    pub fn next_opening(&self, now: Duration) -> Option<Duration> {
        self.all.values().filter(|pod| pod.ready).filter_map(|pod| pod.blocked_until).filter(|until| *until > now).min()
    }
}

//! Where every request asks for a replica: it gets one, waits for one, or is refused. Owns the numbers of requests in
//! flight and the queues; knows neither HTTP nor Kubernetes.
//!
//! One lock, held for short computations only. Whoever waits is told through a channel of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    balance::Endpoint,
    hold::{Place, Waiter},
    metrics::Metrics,
    request::affinity::Affinity,
    routes::{Endpoints, Leaving, ModelId, catalogue::Catalogue},
};

mod lease;
mod line;
pub mod newcomers;
mod rate;
#[cfg(test)]
mod tests;

pub use lease::{Lease, Ticket, Turn};
use line::{Entry, Line, Told};
pub use line::{Outlook, Seat};

/// How often a gateway asks for the same model to be woken.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How soon it is asked again to wake a model when the API server did not take the request.
const ASK_AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why a request gets no replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as allowed wait.
    QueueFull {
        /// How many wait here.
        held: usize,
        /// There is no replica: one starts.
        waking: bool,
        /// From measured rates.
        retry_after_seconds: u64,
    },
    /// It waited as long as allowed.
    Waited {
        /// How long.
        seconds: u64,
        /// From measured rates.
        retry_after_seconds: u64,
    },
    /// The model is switched off.
    SwitchedOff,
    /// The model cannot start.
    CannotStart {
        /// One word for why.
        reason: String,
        /// What to do.
        message: String,
    },
    /// The model is gone.
    Gone,
}

/// A request that asks for a replica.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Which model.
    pub model: ModelId,
    /// Its place among those that wait.
    pub place: Place,
    /// Bytes of its body.
    pub bytes: u64,
    /// Which replica would answer best.
    pub affinity: Option<Affinity>,
    /// Replicas that have failed it.
    pub tried: Vec<String>,
}

type Teller = oneshot::Sender<Result<Lease, Refusal>>;

#[derive(Debug, Default)]
struct State {
    lines: HashMap<ModelId, Line<Teller>>,
    /// Also of models that are not known yet: the watches are not in step.
    endpoints: Endpoints,
    /// Since when pods are on their way out.
    leaving: HashMap<ModelId, HashMap<String, Duration>>,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    started: Instant,
    state: Mutex<State>,
    gateways: AtomicUsize,
    numbers: AtomicU64,
    /// The next deadline may have changed.
    deadlines: Notify,
    /// Some model may have to be woken.
    wakes: Notify,
    /// Other pods are on their way out than before.
    left: watch::Sender<()>,
    metrics: Metrics,
}

/// Told to those that waited, once the lock is free.
type Messages = Vec<(Teller, Result<Lease, Refusal>)>;

impl Desk {
    /// An empty desk.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            state: Mutex::default(),
            gateways: AtomicUsize::new(1),
            numbers: AtomicU64::new(0),
            deadlines: Notify::new(),
            wakes: Notify::new(),
            left: watch::Sender::new(()),
            metrics,
        })
    }

    /// Time since the process started.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The place of a request that arrives now.
    pub fn place(&self) -> Place {
        (self.now(), self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a replica; one that comes `back` after a failed attempt keeps its place.
    ///
    /// # Errors
    /// [`Refusal`], which is final.
    pub fn ask(self: &Arc<Self>, asking: Asking, back: bool) -> Result<Turn, Refusal> {
        let from = asking.place.0;
        self.ask_from(asking, back, from)
    }

    /// The same for a request that waits since `from`, though its place is an older one's: its answer has begun already.
    ///
    /// # Errors
    /// [`Refusal`], which is final.
    pub fn ask_from(self: &Arc<Self>, asking: Asking, back: bool, from: Duration) -> Result<Turn, Refusal> {
        let Asking { model, place, bytes, affinity, tried } = asking;
        let (tell, told) = oneshot::channel();
        let now = self.now();
        let waiter = Waiter { bytes, affinity, tried, since: now, tell };
        let mut state = self.lock();
        let line = state.lines.get_mut(&model).ok_or(Refusal::Gone)?;
        let whole = line.route().bounds;
        let bounds = whole.share(self.gateways.load(Ordering::Relaxed));
        let entry = line.enter((place, back), &bounds, waiter, now)?;
        drop(state);
        Ok(match entry {
            Entry::Seated(seat) => Turn::Now(self.lease(&model, seat)),
            Entry::Waits => {
                self.deadlines.notify_one();
                self.wakes.notify_one();
                let until = from + whole.wait;
                Turn::Later(Ticket { desk: Arc::clone(self), model, place, told, from, until })
            }
        })
    }

    /// A replica that was not tried, where nobody waits and one has room; never waits.
    pub fn seat_at_once(self: &Arc<Self>, asking: &Asking) -> Option<Lease> {
        let now = self.now();
        let mut state = self.lock();
        let seat = state.lines.get_mut(&asking.model)?.spare_seat(asking.affinity, &asking.tried, now);
        drop(state);
        seat.map(|seat| self.lease(&asking.model, seat))
    }

    fn lease(self: &Arc<Self>, model: &ModelId, seat: Seat) -> Lease {
        Lease { desk: Arc::clone(self), model: model.clone(), seat, answered: false }
    }

    /// Does something to a model, and then gives replicas to those that wait.
    fn change(self: &Arc<Self>, model: &ModelId, act: impl FnOnce(&mut Line<Teller>, Duration)) {
        let now = self.now();
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(model) else { return };
        act(line, now);
        let messages = self.release(model, line, now);
        let has_deadline = line.next_opening(now).is_some();
        drop(state);
        tell(messages);
        // Of every request that ends, only those that leave somebody waiting for a replica that rests.
        if has_deadline {
            self.deadlines.notify_one();
        }
    }

    fn release(self: &Arc<Self>, model: &ModelId, line: &mut Line<Teller>, now: Duration) -> Messages {
        let before = line.wake_took();
        let told = line.release(now);
        if let Some(took) = line.wake_took().filter(|took| before != Some(*took)) {
            self.metrics.woke(model, took);
        }
        self.messages(model, told)
    }

    fn messages(self: &Arc<Self>, model: &ModelId, told: Vec<Told<Teller>>) -> Messages {
        told.into_iter().map(|(tell, seat)| (tell, seat.map(|seat| self.lease(model, seat)))).collect()
    }

    /// Takes over which models there are.
    pub fn update_routes(self: &Arc<Self>, catalogue: &Catalogue) {
        let now = self.now();
        let mut messages = Vec::new();
        let mut state = self.lock();
        let State { lines, endpoints, .. } = &mut *state;
        let gone: Vec<_> = lines.keys().filter(|id| catalogue.get(id).is_none()).cloned().collect();
        for id in gone {
            self.metrics.forget(&id);
            let told = lines.remove(&id).map(Line::close).unwrap_or_default();
            messages.extend(self.messages(&id, told));
        }
        for route in catalogue.routes() {
            match lines.get_mut(&route.id) {
                Some(line) if line.route() == route => {}
                Some(line) => {
                    line.update_route(Arc::clone(route));
                    messages.extend(self.release(&route.id, line, now));
                }
                None => {
                    self.metrics.introduce(&route.id);
                    let known = endpoints.get(&route.id).map(Vec::as_slice).unwrap_or_default();
                    lines.insert(route.id.clone(), Line::new(Arc::clone(route), known));
                }
            }
        }
        drop(state);
        tell(messages);
        self.deadlines.notify_one();
        self.wakes.notify_one();
    }

    /// Takes over where the replicas of every model are.
    pub fn update_endpoints(self: &Arc<Self>, all: &Endpoints) {
        let now = self.now();
        let mut messages = Vec::new();
        let mut state = self.lock();
        let State { lines, endpoints, .. } = &mut *state;
        for (id, line) in lines.iter_mut() {
            let none: &[Endpoint] = &[];
            let new = all.get(id).map_or(none, Vec::as_slice);
            if endpoints.get(id).map_or(none, Vec::as_slice) != new {
                line.update_endpoints(new, now);
                messages.extend(self.release(id, line, now));
            }
        }
        endpoints.clone_from(all);
        drop(state);
        tell(messages);
        self.deadlines.notify_one();
        self.wakes.notify_one();
    }

    /// Takes over which pods are on their way out.
    pub fn update_leaving(&self, all: Leaving) {
        let now = self.now();
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.leaving);
        for (model, pods) in all {
            let known = before.remove(&model).unwrap_or_default();
            let since = |pod: String| {
                let since = known.get(&pod).copied().unwrap_or(now);
                (pod, since)
            };
            state.leaving.insert(model, pods.into_iter().map(since).collect());
        }
        drop(state);
        self.left.send_replace(());
    }

    /// Since when a pod is on its way out.
    fn leaves_since(&self, model: &ModelId, pod: &str) -> Option<Duration> {
        self.lock().leaving.get(model)?.get(pod).copied()
    }

    /// Takes over how many gateways there are; each takes its share of what may wait.
    pub fn update_gateways(&self, count: usize) {
        self.gateways.store(count.max(1), Ordering::Relaxed);
    }

    /// What a request that waits is told; `None` when it does not wait.
    pub fn outlook(&self, model: &ModelId, place: Place) -> Option<Outlook> {
        self.lock().lines.get(model)?.outlook(place, self.now())
    }

    /// Of every model: requests that wait, and that replicas answer.
    pub fn counts(&self) -> Vec<(ModelId, usize, u32)> {
        let state = self.lock();
        let counted = state.lines.iter().map(|(id, line)| {
            let (held, in_flight) = line.counts();
            (id.clone(), held, in_flight)
        });
        counted.collect()
    }

    /// Gives replicas to those that wait when a time of rest is over, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let now = self.now();
            let next = self.release_rested(now);
            let opening = async {
                match next {
                    Some(at) => tokio::time::sleep(at.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.deadlines.notified() => {}
                () = opening => {}
            }
        }
    }

    /// Releases what can go at `now`, and returns when the next replica has rested: of one and the same moment, so that
    /// no rest can end between the two.
    fn release_rested(self: &Arc<Self>, now: Duration) -> Option<Duration> {
        let (mut messages, mut next) = (Vec::new(), None);
        let mut state = self.lock();
        for (model, line) in &mut state.lines {
            messages.extend(self.release(model, line, now));
            let opening = line.next_opening(now);
            next = next.map_or(opening, |next: Duration| Some(opening.map_or(next, |at| next.min(at))));
        }
        drop(state);
        tell(messages);
        next
    }

    /// Waits until models are to be woken, notes that it is asked for now, and returns them.
    pub async fn sleepers(&self) -> Vec<ModelId> {
        loop {
            let now = self.now();
            let mut next = None;
            let mut due = Vec::new();
            for (id, line) in &mut self.lock().lines {
                match line.wake_due() {
                    Some(at) if at <= now => {
                        line.asked_to_wake(now + ASK_AGAIN);
                        due.push(id.clone());
                    }
                    Some(at) => next = Some(next.map_or(at, |next: Duration| next.min(at))),
                    None => {}
                }
            }
            if !due.is_empty() {
                return due;
            }
            let again = async {
                match next {
                    Some(at) => tokio::time::sleep(at.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wakes.notified() => {}
                () = again => {}
            }
        }
    }

    /// The API server did not take the request to wake a model.
    pub fn not_asked(&self, model: &ModelId) {
        if let Some(line) = self.lock().lines.get_mut(model) {
            line.asked_to_wake(self.now() + ASK_AGAIN_AFTER_FAILURE);
        }
        self.wakes.notify_one();
    }
}

/// Tells those that waited. Who has gone meanwhile gives its replica back.
fn tell(messages: Messages) {
    for (teller, message) in messages {
        drop(teller.send(message));
    }
}

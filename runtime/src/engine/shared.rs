//! What the handles and the engine thread both see: counts, flags and the completion rate.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::rate::CompletionRate;
use super::scheduler::Counts;
use super::{Snapshot, Stop, SubmitError};

/// Accepted requests, and whether more are accepted.
pub struct Shared {
    state: Mutex<State>,
    /// Number of accepted requests that have not ended.
    accepted: watch::Sender<usize>,
    /// Why the thread is gone.
    stop: watch::Sender<Option<Stop>>,
    start: Instant,
    capacity: usize,
    max_accepted: usize,
}

#[derive(Default)]
struct State {
    accepted: usize,
    running: usize,
    kv_usage: f64,
    picture_bytes: u64,
    counts: Counts,
    rate: CompletionRate,
    draining: bool,
    stopped: bool,
}

impl Shared {
    /// For `capacity` sequences at once and `max_queue` more that wait.
    pub fn new(capacity: usize, max_queue: usize) -> Self {
        Self {
            state: Mutex::default(),
            accepted: watch::Sender::new(0),
            stop: watch::Sender::new(None),
            start: Instant::now(),
            capacity,
            max_accepted: capacity.saturating_add(max_queue),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Most answers that can be accepted together.
    pub fn most_accepted(&self) -> usize {
        self.max_accepted
    }

    /// Counts the `answers` of a request in and hands it over by `send`, or says why not. `send` returns whether
    /// the engine thread still listens.
    pub fn accept(&self, answers: usize, send: impl FnOnce() -> bool) -> Result<(), SubmitError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(SubmitError::Stopped);
        }
        if state.draining {
            return Err(SubmitError::Draining);
        }
        if state.accepted.saturating_add(answers) > self.max_accepted {
            let waiting = state.accepted - state.running;
            return Err(SubmitError::QueueFull { retry_after_seconds: state.rate.retry_after(waiting) });
        }
        if !send() {
            return Err(SubmitError::Stopped);
        }
        state.accepted += answers;
        state.rate.started(self.now());
        self.accepted.send_replace(state.accepted);
        Ok(())
    }

    /// Counts one request out.
    pub fn ended(&self, completed: bool) {
        let mut state = self.lock();
        state.accepted = state.accepted.saturating_sub(1);
        state.running = state.running.min(state.accepted);
        if state.accepted == 0 {
            state.kv_usage = 0.0;
        }
        if completed {
            let idle = state.accepted == 0;
            state.rate.completed(self.now(), idle);
        }
        self.accepted.send_replace(state.accepted);
    }

    /// Publishes what the thread does.
    pub fn publish(&self, running: usize, kv_usage: f64, picture_bytes: u64, counts: Counts) {
        let mut state = self.lock();
        (state.running, state.kv_usage) = (running.min(state.accepted), kv_usage);
        (state.picture_bytes, state.counts) = (picture_bytes, counts);
    }

    /// Refuses from now on.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// The thread is gone, and `why`; `last_words` runs before anyone can be told so.
    pub fn stop(&self, why: Stop, last_words: impl FnOnce()) {
        let mut state = self.lock();
        last_words();
        let State { rate, draining, counts, .. } = *state;
        *state = State { stopped: true, draining, rate, counts, ..State::default() };
        self.accepted.send_replace(0);
        self.stop.send_replace(Some(why));
    }

    /// Resolves when the thread is gone.
    pub async fn stopped(&self) -> Stop {
        // The sender lives as long as `self`, so waiting ends only by the condition.
        let mut stop = self.stop.subscribe();
        stop.wait_for(Option::is_some).await.ok().and_then(|why| *why).unwrap_or(Stop::Fault)
    }

    /// See [`super::Engine::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            running: state.running,
            waiting: state.accepted - state.running,
            capacity: self.capacity,
            kv_usage: state.kv_usage,
            picture_bytes: state.picture_bytes,
            counts: state.counts,
            completions_per_second: state.rate.per_second(),
            retry_after_seconds: state.rate.retry_after(state.accepted - state.running),
            stopped: state.stopped,
        }
    }

    /// Resolves when no accepted request is left.
    pub async fn idle(&self) {
        // The sender lives as long as `self`, so waiting ends only by the condition.
        let _ = self.accepted.subscribe().wait_for(|accepted| *accepted == 0).await;
    }
}

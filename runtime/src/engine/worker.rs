//! The one thread that owns model and KV cache: takes requests from the channel, does the steps
//! that the scheduler chooses, sends tokens. If it dies, every client is told.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::UnboundedSender;

use super::executor::Executor;
use super::sampling::{choose, uniform};
use super::scheduler::{Decode, Limits, Scheduler, Sequence, SequenceId, Work};
use super::shared::Shared;
use super::{Event, Failure, FinishReason, Request};

/// A request and where its events go.
pub struct Submission {
    /// What to generate.
    pub request: Request,
    /// Where to.
    pub events: UnboundedSender<Event>,
}

/// State of the engine thread.
pub struct Worker<E> {
    executor: E,
    scheduler: Scheduler,
    kv_tokens: usize,
    streams: HashMap<SequenceId, Stream>,
    next_id: SequenceId,
    /// No step can succeed any more.
    lost: bool,
    shared: Arc<Shared>,
}

struct Stream {
    request: Request,
    seed: u64,
    events: UnboundedSender<Event>,
    generated: usize,
    last: u32,
}

impl<E: Executor> Worker<E> {
    /// A worker over `executor`, with a scheduler of `limits`.
    pub fn new(executor: E, limits: Limits, shared: Arc<Shared>) -> Self {
        let scheduler = Scheduler::new(limits);
        Self {
            executor,
            scheduler,
            kv_tokens: limits.kv_tokens,
            streams: HashMap::new(),
            next_id: 0,
            lost: false,
            shared,
        }
    }

    /// Serves until every handle is gone and all accepted requests have ended, or until a fault or the loss of the
    /// device.
    pub fn run(mut self, submissions: &Receiver<Submission>) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(submissions)));
        if served.is_err() {
            tracing::error!("the engine thread panicked");
        }
        let shared = Arc::clone(&self.shared);
        shared.stop(|| {
            let accepted = self.streams.drain().map(|(_, stream)| stream.events);
            for events in accepted.chain(submissions.try_iter().map(|submission| submission.events)) {
                let _ = events.send(Event::Failed(Failure::Stopped));
            }
        });
    }

    fn serve(&mut self, submissions: &Receiver<Submission>) {
        loop {
            if self.scheduler.is_idle() {
                match submissions.recv() {
                    Ok(submission) => self.accept(submission),
                    Err(_) => return,
                }
            }
            for submission in submissions.try_iter() {
                self.accept(submission);
            }
            self.forget_cancelled();
            let step = self.scheduler.step();
            // Published before the work, so that a first prefill shows as running.
            self.publish();
            if !step.decode.is_empty() {
                self.decode(&step.decode);
            }
            if let Some(work) = step.work {
                self.work(work);
            }
            self.publish();
            if self.lost {
                tracing::error!("the device is lost");
                return;
            }
        }
    }

    fn accept(&mut self, submission: Submission) {
        let Submission { mut request, events } = submission;
        let id = self.next_id;
        self.next_id += 1;
        self.scheduler.push(Sequence {
            id,
            prompt_tokens: request.prompt.ids.len(),
            max_new_tokens: request.max_new_tokens,
            images: request.prompt.images.len(),
        });
        let tokens = request.prompt.ids.len().saturating_add(request.max_new_tokens);
        self.executor.begin(id, std::mem::take(&mut request.prompt), tokens);
        let seed = request.sampling.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        self.streams.insert(id, Stream { request, seed, events, generated: 0, last: 0 });
    }

    fn forget_cancelled(&mut self) {
        let gone: Vec<SequenceId> =
            self.streams.iter().filter(|(_, stream)| stream.events.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.end(id, None);
        }
    }

    fn decode(&mut self, decode: &[Decode]) {
        let rows: Vec<(Decode, u32)> =
            decode.iter().filter_map(|row| Some((*row, self.streams.get(&row.id)?.last))).collect();
        match self.executor.decode(&rows) {
            Ok(logits) => {
                for ((row, _), logits) in rows.iter().zip(logits) {
                    self.token(row.id, &logits);
                }
            }
            Err(error) => {
                for (row, _) in rows {
                    self.fail(row.id, error.clone());
                }
            }
        }
    }

    fn work(&mut self, work: Work) {
        let (id, done) = match work {
            Work::Encode { id, image } => (id, self.executor.encode(id, image).map(|()| None)),
            Work::Prefill { id, slot, start, rows, last } => (id, self.executor.prefill(id, slot, start, rows, last)),
        };
        match done {
            Ok(Some(logits)) => self.token(id, &logits),
            Ok(None) => {}
            Err(error) => self.fail(id, error),
        }
    }

    /// Chooses the next token of `id`, sends it, and ends the sequence if that was the last.
    fn token(&mut self, id: SequenceId, logits: &[f32]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let draw = uniform(stream.seed, stream.generated as u64);
        let Ok(token) = choose(logits, &stream.request.sampling, draw) else {
            return self.fail(id, Failure::NotFinite);
        };
        if stream.request.stop_ids.contains(&token) {
            return self.end(id, Some(Event::Finished(FinishReason::Stop)));
        }
        stream.generated += 1;
        stream.last = token;
        let gone = stream.events.send(Event::Token { id: token }).is_err();
        if gone {
            self.end(id, None);
        } else if stream.generated >= stream.request.max_new_tokens {
            self.end(id, Some(Event::Finished(FinishReason::Length)));
        }
    }

    fn fail(&mut self, id: SequenceId, why: Failure) {
        self.lost |= matches!(why, Failure::Step(_)) && self.executor.lost();
        tracing::error!(%why, "a sequence failed");
        self.end(id, Some(Event::Failed(why)));
    }

    /// Ends `id` with a last event, or silently when its client is gone.
    fn end(&mut self, id: SequenceId, event: Option<Event>) {
        self.scheduler.remove(id);
        self.executor.end(id);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.shared.ended(matches!(event, Some(Event::Finished(_))));
        if let Some(event) = event {
            // The client may have gone in this very moment.
            let _ = stream.events.send(event);
        }
    }

    fn publish(&self) {
        let used = self.scheduler.cached_tokens() as f64 / self.kv_tokens.max(1) as f64;
        self.shared.publish(self.scheduler.running(), used);
    }
}

#[cfg(test)]
mod tests;

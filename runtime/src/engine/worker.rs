//! The one thread that owns model and KV cache: takes requests from the channel, does the steps
//! that the scheduler chooses, sends tokens. If it dies, every client is told.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::executor::{Executor, Feeding, Next, Reading};
use super::prefix::Content;
use super::request::EventSink;
use super::sampling::{NotFinite, choose, uniform};
use super::scheduler::{Chunk, Decode, Limits, Scheduler, Sequence, SequenceId, Tiles, Work};
use super::shared::Shared;
use super::{Event, Failure, FinishReason, Request};
use crate::ops::Segment;

/// A request and where its events go.
pub struct Submission {
    /// What to generate.
    pub request: Request,
    /// Its prompt's tokens and pictures, or why there is nothing to generate.
    pub content: Result<Content, Failure>,
    /// Where to.
    pub events: EventSink,
}

/// State of the engine thread.
pub struct Worker<E> {
    executor: E,
    scheduler: Scheduler,
    streams: HashMap<SequenceId, Stream>,
    next_id: SequenceId,
    /// No step can succeed any more.
    lost: bool,
    shared: Arc<Shared>,
}

struct Stream {
    request: Request,
    seed: u64,
    events: EventSink,
    generated: usize,
    last: u32,
}

impl Stream {
    /// Whether the highest logit is all that matters for its tokens.
    fn is_greedy(&self) -> bool {
        self.request.sampling.temperature <= 0.0
    }
}

impl<E: Executor> Worker<E> {
    /// A worker over `executor`, with a scheduler of `limits`.
    pub fn new(executor: E, limits: Limits, shared: Arc<Shared>) -> Self {
        let scheduler = Scheduler::new(limits);
        Self { executor, scheduler, streams: HashMap::new(), next_id: 0, lost: false, shared }
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
        self.executor.leave();
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
            for admission in &step.admitted {
                if let Some(stream) = self.streams.get(&admission.id) {
                    stream.events.found(admission.cached_tokens);
                }
            }
            step.dropped.iter().for_each(|key| self.executor.drop_picture(key));
            // Published before the work, so that a first prefill shows as running.
            self.publish();
            if !step.decode.is_empty() {
                self.decode(&step.decode);
            }
            match step.work {
                Some(Work::Encode(tiles)) => self.encode(&tiles),
                Some(Work::Prefill(chunks)) => self.prefill(&chunks),
                None => {}
            }
            self.publish();
            if self.lost {
                tracing::error!("the device is lost");
                return;
            }
        }
    }

    fn accept(&mut self, submission: Submission) {
        let Submission { mut request, content, events } = submission;
        let content = match content {
            Ok(content) => content,
            Err(why) => {
                tracing::error!(%why, "a prompt cannot be read");
                self.shared.ended(false);
                let _ = events.send(Event::Failed(why));
                return;
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let max_tokens = content.len().saturating_add(request.max_new_tokens);
        self.scheduler.push(Sequence { id, content, max_tokens });
        self.executor.begin(id, std::mem::take(&mut request.prompt.images));
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
        let feeding = |row: &Decode| {
            let (content, blocks) = self.scheduler.get(row.id)?;
            let segment = Segment { blocks, start: row.position, rows: 1, long: content.long() };
            let stream = self.streams.get(&row.id)?;
            Some(Feeding { segment, id: row.id, token: stream.last, greedy: stream.is_greedy() })
        };
        let feedings: Vec<Feeding<'_>> = decode.iter().filter_map(feeding).collect();
        let ids: Vec<SequenceId> = feedings.iter().map(|feeding| feeding.id).collect();
        let done = apart(&feedings, |feedings| self.executor.decode(feedings));
        for (id, next) in ids.into_iter().zip(done) {
            self.follow(id, next.map(Some));
        }
    }

    fn encode(&mut self, tiles: &[Tiles]) {
        for (tiles, done) in tiles.iter().zip(apart(tiles, |tiles| self.executor.encode(tiles))) {
            if let Err(why) = done {
                self.scheduler.restart_picture(&tiles.key);
                self.fail(tiles.id, why);
            }
        }
    }

    fn prefill(&mut self, chunks: &[Chunk]) {
        let reading = |chunk: &Chunk| {
            let (content, blocks) = self.scheduler.get(chunk.id)?;
            let positions = chunk.start..chunk.start + chunk.rows;
            Some(Reading {
                segment: Segment { blocks, start: chunk.start, rows: chunk.rows, long: content.long() },
                id: chunk.id,
                ids: content.ids(positions.clone()),
                pictures: content.rows_at(&positions).collect(),
                last: chunk.last,
                greedy: self.streams.get(&chunk.id).is_some_and(Stream::is_greedy),
            })
        };
        let readings: Vec<Reading<'_>> = chunks.iter().filter_map(reading).collect();
        let ids: Vec<SequenceId> = readings.iter().map(|reading| reading.id).collect();
        let done = apart(&readings, |readings| self.executor.prefill(readings));
        for (id, next) in ids.into_iter().zip(done) {
            self.follow(id, next);
        }
    }

    /// Goes on with what a step gave a sequence.
    fn follow(&mut self, id: SequenceId, next: Result<Option<Next>, Failure>) {
        match next {
            Ok(Some(next)) => self.token(id, &next),
            Ok(None) => {}
            Err(why) => self.fail(id, why),
        }
    }

    /// Chooses the next token of `id`, sends it, and ends the sequence if that was the last.
    fn token(&mut self, id: SequenceId, next: &Next) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let draw = uniform(stream.seed, stream.generated as u64);
        let chosen = match next {
            Next::Highest(token) => token.ok_or(NotFinite),
            Next::Logits(logits) => choose(logits, &stream.request.sampling, draw),
        };
        let Ok(token) = chosen else { return self.fail(id, Failure::NotFinite) };
        if stream.request.stop_ids.contains(&token) {
            return self.end(id, Some(Event::Finished(FinishReason::Stop)));
        }
        stream.generated += 1;
        stream.last = token;
        self.scheduler.token(id, token);
        let gone = stream.events.send(Event::Token { id: token }).is_none();
        if gone {
            self.end(id, None);
        } else if stream.generated >= stream.request.max_new_tokens {
            self.end(id, Some(Event::Finished(FinishReason::Length)));
        }
    }

    fn fail(&mut self, id: SequenceId, why: Failure) {
        self.lost |= matches!(why, Failure::Step(_)) && self.executor.lost();
        tracing::error!(%why, "a sequence failed");
        self.scheduler.fail(id);
        self.end(id, Some(Event::Failed(why)));
    }

    /// Ends `id` with a last event, or silently when its client is gone.
    fn end(&mut self, id: SequenceId, event: Option<Event>) {
        self.scheduler.finish(id);
        self.executor.end(id);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.shared.ended(matches!(event, Some(Event::Finished(_))));
        if let Some(event) = event {
            // The client may have gone in this very moment.
            let _ = stream.events.send(event);
        }
    }

    fn publish(&self) {
        let pool = self.scheduler.pool();
        let used = pool.used() as f64 / pool.total().max(1) as f64;
        self.shared.publish(self.scheduler.running(), used, self.scheduler.counts());
    }
}

/// Computes `items` together. What fails together is tried one by one, so that only what is at fault fails.
fn apart<T, O>(items: &[T], mut compute: impl FnMut(&[T]) -> Result<Vec<O>, Failure>) -> Vec<Result<O, Failure>> {
    let lacking = || Failure::Step("a step gave no result".to_owned());
    match compute(items) {
        Ok(done) => done.into_iter().map(Ok).collect(),
        Err(why) if items.len() <= 1 => vec![Err(why)],
        Err(_) => {
            let single = |item| compute(std::slice::from_ref(item))?.pop().ok_or_else(lacking);
            items.iter().map(single).collect()
        }
    }
}

#[cfg(test)]
mod tests;

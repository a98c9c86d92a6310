//! The one thread that owns model and KV cache: takes requests from the channel, does the steps
//! that the scheduler chooses, sends tokens. If it dies, every client is told.

mod ahead;
mod stream;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::executor::{Executor, Feeding, Next, Reading};
use super::fair::{ClientId, FairQueue};
use super::logprobs::Logprobs;
use super::prefix::Content;
use super::request::EventSink;
use super::scheduler::{Chunk, Counts, Decode, Limits, Scheduler, Sequence, SequenceId, Tiles, Work};
use super::shared::Shared;
use super::steering::Steered;
use super::{Event, Failure, FinishReason, Request, Stop};
use crate::ops::Segment;
use stream::Stream;

/// A request and where its events go.
pub struct Submission {
    /// What to generate.
    pub request: Request,
    /// Its prompt's tokens and pictures, or why there is nothing to generate.
    pub content: Result<Content, Failure>,
    /// Where to.
    pub events: EventSink,
    /// Further answers to the same prompt, which begin once it has been read.
    pub more: Vec<(Request, EventSink)>,
    /// Whose it is.
    pub client: ClientId,
}

impl Submission {
    /// Where the events of all its answers go.
    fn sinks(self) -> impl Iterator<Item = EventSink> {
        std::iter::once(self.events).chain(self.more.into_iter().map(|(_, events)| events))
    }
}

/// State of the engine thread.
pub struct Worker<E> {
    executor: E,
    /// Those whose turn has not come; the scheduler gets no more than it can admit.
    queue: FairQueue<Submission>,
    scheduler: Scheduler,
    streams: HashMap<SequenceId, Stream>,
    /// Further answers to the prompts of sequences that have no token yet.
    followers: HashMap<SequenceId, Vec<Submission>>,
    /// Those whose next token is computed and was not asked for yet.
    begun: Vec<SequenceId>,
    next_id: SequenceId,
    /// No step can succeed any more.
    lost: bool,
    shared: Arc<Shared>,
}

impl<E: Executor> Worker<E> {
    /// A worker over `executor`, with a scheduler of `limits`.
    pub fn new(executor: E, limits: Limits, shared: Arc<Shared>) -> Self {
        let scheduler = Scheduler::new(limits);
        Self {
            executor,
            queue: FairQueue::default(),
            scheduler,
            streams: HashMap::new(),
            followers: HashMap::new(),
            begun: Vec::new(),
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
        if self.lost {
            tracing::error!("the device is lost");
        }
        let shared = Arc::clone(&self.shared);
        let why = if self.lost { Stop::DeviceLost } else { Stop::Fault };
        shared.stop(why, || {
            let accepted = self.streams.drain().map(|(_, stream)| stream.events);
            let followers = self.followers.drain().flat_map(|(_, followers)| followers);
            let waiting = followers.chain(self.queue.drain()).chain(submissions.try_iter());
            for events in accepted.chain(waiting.flat_map(Submission::sinks)) {
                let _ = events.send(Event::Failed(Failure::Stopped));
            }
        });
        self.executor.leave();
    }

    fn serve(&mut self, submissions: &Receiver<Submission>) {
        loop {
            if self.scheduler.is_idle() && self.queue.is_empty() {
                self.settle();
                if self.lost {
                    return;
                }
                match submissions.recv() {
                    Ok(submission) => self.queue.push(submission.client, submission),
                    Err(_) => return,
                }
            }
            for submission in submissions.try_iter() {
                self.queue.push(submission.client, submission);
            }
            self.forget_cancelled();
            for _ in 0..self.scheduler.places() {
                let Some(submission) = self.queue.pop() else { break };
                self.accept(submission);
            }
            let step = self.scheduler.step();
            for admission in &step.admitted {
                if let Some(stream) = self.streams.get(&admission.id) {
                    stream.events.started(admission.cached_tokens);
                }
            }
            step.dropped.iter().for_each(|key| self.executor.drop_picture(key));
            // Published before the work, so that a first prefill shows as running.
            self.publish();
            self.compute(step.decode, step.work);
            self.publish();
            if self.lost {
                return;
            }
        }
    }

    /// Does the work of a step.
    fn compute(&mut self, decode: Vec<Decode>, work: Option<Work>) {
        if work.is_none() && self.ahead(&decode) {
            return;
        }
        // Whoever ends with a token that is known now is left out of what follows.
        self.settle();
        match work {
            Some(Work::Prefill(mut chunks)) if self.executor.mixes() => {
                chunks.extend(decode.into_iter().map(Decode::into_chunk));
                return self.prefill(&chunks);
            }
            _ if decode.is_empty() => {}
            _ => self.decode(&decode),
        }
        match work {
            Some(Work::Encode(tiles)) => self.encode(&tiles),
            Some(Work::Prefill(chunks)) => self.prefill(&chunks),
            None => {}
        }
    }

    fn accept(&mut self, submission: Submission) {
        let mut content = match &submission.content {
            Ok(content) => content.clone(),
            Err(why) => {
                tracing::error!(%why, "a prompt cannot be read");
                let why = why.clone();
                for events in submission.sinks() {
                    self.shared.ended(false);
                    let _ = events.send(Event::Failed(why.clone()));
                }
                return;
            }
        };
        let Submission { mut request, events, more, client, .. } = submission;
        let follower = |(request, events)| {
            let content = Ok(content.clone());
            Submission { request, content, events, more: vec![], client }
        };
        let followers: Vec<Submission> = more.into_iter().map(follower).collect();
        let generated = std::mem::take(&mut request.generated);
        if generated.len() >= request.max_new_tokens {
            return self.over(&events, FinishReason::Length, followers);
        }
        let steering = std::mem::take(&mut request.steering);
        let mut steered = (!steering.is_none())
            .then(|| Box::new(Steered::new(steering, &request.stop_ids, content.ids(0..content.len()))));
        if steered.as_mut().is_some_and(|steered| complete_after(steered, &generated)) {
            return self.over(&events, FinishReason::Stop, followers);
        }
        let id = self.next_id;
        self.next_id += 1;
        if !followers.is_empty() {
            self.followers.insert(id, followers);
        }
        let max_tokens = content.len().saturating_add(request.max_new_tokens);
        for token in &generated {
            content.push(*token);
        }
        self.scheduler.push(Sequence { id, content, max_tokens });
        self.executor.begin(id, std::mem::take(&mut request.prompt.images));
        let seed = request.sampling.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        self.streams.insert(id, Stream { request, steered, seed, events, generated: generated.len(), last: 0 });
    }

    /// Ends an answer that needs no step, and begins those that wait for it.
    fn over(&mut self, events: &EventSink, reason: FinishReason, followers: Vec<Submission>) {
        self.shared.ended(true);
        let _ = events.send(Event::Finished(reason));
        for follower in followers {
            self.accept(follower);
        }
    }

    fn forget_cancelled(&mut self) {
        // With the first answer to a prompt end the others to it, which begin thereby.
        while let Some(id) = self.streams.iter().find(|(_, stream)| stream.events.is_closed()).map(|(id, _)| *id) {
            self.end(id, None);
        }
        let shared = &self.shared;
        self.queue.retain(|submission| {
            let gone = submission.events.is_closed() && submission.more.iter().all(|(_, events)| events.is_closed());
            if gone {
                (0..=submission.more.len()).for_each(|_| shared.ended(false));
            }
            !gone
        });
    }

    fn decode(&mut self, decode: &[Decode]) {
        let feeding = |row: &Decode| {
            let (content, blocks) = self.scheduler.get(row.id)?;
            let segment = Segment { blocks, start: row.position, rows: 1, long: content.long() };
            let stream = self.streams.get(&row.id)?;
            Some(Feeding { segment, id: row.id, token: stream.last, choice: stream.choice() })
        };
        let feedings: Vec<Feeding<'_>> = decode.iter().filter_map(feeding).collect();
        if feedings.is_empty() {
            return;
        }
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
                choice: self.streams.get(&chunk.id).and_then(Stream::choice),
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
        let Ok(chosen) = stream.choose(next) else { return self.fail(id, Failure::NotFinite) };
        let (token, complete) = match chosen {
            Ok(Some(chosen)) => chosen,
            Ok(None) => return self.end(id, Some(Event::Finished(FinishReason::Stop))),
            Err(why) => return self.fail(id, why),
        };
        let logprobs = match (stream.request.logprobs, next) {
            (Some(top), Next::Logits(logits)) => Some(Box::new(Logprobs::of(logits, token, top))),
            _ => None,
        };
        stream.generated += 1;
        stream.last = token;
        self.scheduler.token(id, token);
        let gone = stream.events.send(Event::Token { id: token, logprobs }).is_none();
        if gone {
            self.end(id, None);
        } else if complete {
            self.end(id, Some(Event::Finished(FinishReason::Stop)));
        } else if stream.generated >= stream.request.max_new_tokens {
            self.end(id, Some(Event::Finished(FinishReason::Length)));
        }
        self.release(id);
    }

    /// Begins the further answers to the prompt of `id`, which has been read or is given up.
    fn release(&mut self, id: SequenceId) {
        self.followers.remove(&id).into_iter().flatten().for_each(|follower| self.accept(follower));
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
        self.release(id);
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
        let (graph_hits, graph_misses) = self.executor.graphs();
        let counts = Counts { graph_hits, graph_misses, ..self.scheduler.counts() };
        self.shared.publish(self.scheduler.running(), used, self.scheduler.encoder().bytes(), counts);
    }
}

/// Leads `steered` to where the tokens of another server have led; says whether the form is complete with them.
fn complete_after(steered: &mut Steered, generated: &[u32]) -> bool {
    // A token that the form does not take is told with the next one.
    generated.iter().any(|token| matches!(steered.took(*token), Ok(Some(_))))
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

//! Sends requests to the engine in one of several orders, and notes when each of their tokens came. Prompts are made
//! ahead on a thread of their own, so that the engine waits for none, and no more of them than are to be sent together.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep_until;

use crate::commands::CommandError;
use crate::engine::{Engine, Event, Request, SubmitError, uniform};
use crate::prompt::Prompt;

/// Prompts that are ready where they are sent at random moments.
const AHEAD: usize = 16;

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    /// So many at once, and the next when all of them are answered.
    Batches(usize),
    /// By so many clients, each of which sends its next request when it has its answer.
    Clients(usize),
    /// At moments that are as far apart as one is from the next, whether others are answered or not.
    Steady {
        /// Requests a second.
        rate: f64,
    },
    /// At random moments, a process of Poisson's, whether others are answered or not.
    Random {
        /// Requests a second.
        rate: f64,
        /// Same seed, same moments.
        seed: u64,
    },
}

/// One request.
pub struct Ask {
    /// What is asked.
    pub prompt: Prompt,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// Tokens after which nobody listens any more.
    pub cancel_after: Option<usize>,
}

/// What is sent where.
pub struct Load<'a> {
    /// Answers.
    pub engine: &'a Engine,
    /// The request of a number; `None` ends the load.
    pub asks: &'a (dyn Fn(usize) -> Option<Ask> + Sync),
}

/// When one request was sent and when its tokens came.
#[derive(Clone, Debug)]
pub struct Timing {
    /// When it was sent; at random moments, when it was to be sent.
    pub sent: Instant,
    /// When each token came.
    pub tokens: Vec<Instant>,
    /// Whether the client left before the end.
    pub cancelled: bool,
}

/// Those of all requests, batch by batch where they were sent so.
#[derive(Debug, Default)]
pub struct Timings {
    /// Of each batch.
    pub batches: Vec<Vec<Timing>>,
    /// Requests for which the queue had no room.
    pub refused: usize,
    /// In which requests were sent or answered.
    pub seconds: f64,
}

impl Load<'_> {
    /// Sends the requests of some numbers, or as many as there are; `answered` is told how many have been answered.
    ///
    /// # Errors
    /// The first request that fails.
    pub fn run(
        &self,
        runtime: &Runtime,
        requests: Range<usize>,
        arrivals: Arrivals,
        answered: &dyn Fn(usize),
    ) -> Result<Timings, CommandError> {
        let ahead = match arrivals {
            Arrivals::Batches(together) | Arrivals::Clients(together) => together.max(1),
            Arrivals::Steady { .. } | Arrivals::Random { .. } => AHEAD,
        };
        let (prompts, ready) = channel(ahead);
        thread::scope(|scope| {
            let moments = moments(arrivals, requests.len());
            // It ends when nobody takes prompts any more.
            scope.spawn(move || requests.map_while(self.asks).try_for_each(|ask| prompts.blocking_send(ask)));
            runtime.block_on(async {
                match arrivals {
                    Arrivals::Batches(size) => self.batches(size, ready, answered).await,
                    Arrivals::Clients(clients) => self.clients(clients, ready, answered).await,
                    Arrivals::Steady { .. } | Arrivals::Random { .. } => self.at(moments, ready, answered).await,
                }
            })
        })
    }

    async fn batches(
        &self,
        size: usize,
        mut ready: Receiver<Ask>,
        answered: &dyn Fn(usize),
    ) -> Result<Timings, CommandError> {
        let (mut timings, mut done) = (Timings::default(), 0);
        loop {
            let mut asks = Vec::with_capacity(size);
            while asks.len() < size
                && let Some(ask) = ready.recv().await
            {
                asks.push(ask);
            }
            if asks.is_empty() {
                return Ok(timings);
            }
            let begun = Instant::now();
            let batch = try_join_all(asks.into_iter().map(|ask| self.ask(ask, begun))).await?;
            timings.seconds += begun.elapsed().as_secs_f64();
            done += batch.len();
            timings.refused += batch.iter().filter(|timing| timing.is_none()).count();
            timings.batches.push(batch.into_iter().flatten().collect());
            answered(done);
        }
    }

    async fn clients(
        &self,
        clients: usize,
        mut ready: Receiver<Ask>,
        answered: &dyn Fn(usize),
    ) -> Result<Timings, CommandError> {
        let Some(first) = ready.recv().await else { return Ok(Timings::default()) };
        let begun = Instant::now();
        let next = stream::unfold(ready, |mut ready| async move { Some((ready.recv().await?, ready)) });
        let asks = stream::iter([first]).chain(next);
        let answers = asks.map(|ask| self.ask(ask, Instant::now())).buffer_unordered(clients.max(1));
        gather(answers, begun, answered).await
    }

    async fn at(
        &self,
        moments: Vec<Duration>,
        ready: Receiver<Ask>,
        answered: &dyn Fn(usize),
    ) -> Result<Timings, CommandError> {
        let begun = Instant::now();
        let due = stream::unfold((ready, moments.into_iter()), |(mut ready, mut moments)| async move {
            let moment = begun + moments.next()?;
            sleep_until(moment.into()).await;
            Some(((ready.recv().await?, moment), (ready, moments)))
        });
        let answers = due.map(|(ask, moment)| self.ask(ask, moment)).buffer_unordered(usize::MAX);
        gather(answers, begun, answered).await
    }

    /// One answer; `None` where the queue has no room.
    async fn ask(&self, ask: Ask, sent: Instant) -> Result<Option<Timing>, CommandError> {
        let Ask { prompt, output_tokens, cancel_after } = ask;
        let request = Request { prompt, max_new_tokens: output_tokens, ..Request::default() };
        let mut answer = match self.engine.submit(request) {
            Ok(answer) => answer,
            Err(SubmitError::QueueFull { .. }) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let mut tokens = Vec::with_capacity(output_tokens);
        loop {
            if cancel_after.is_some_and(|after| tokens.len() >= after) {
                return Ok(Some(Timing { sent, tokens, cancelled: true }));
            }
            match answer.next().await {
                Some(Event::Token { .. }) => tokens.push(Instant::now()),
                Some(Event::Finished(_)) => return Ok(Some(Timing { sent, tokens, cancelled: false })),
                Some(Event::Failed(why)) => return Err(failed(&why)),
                None => return Err(failed(&"the engine gave no end of an answer")),
            }
        }
    }
}

/// A request that failed, and why.
pub fn failed(why: &dyn ToString) -> CommandError {
    CommandError::Compute(why.to_string())
}

/// All answers as they come.
async fn gather(
    answers: impl futures::Stream<Item = Result<Option<Timing>, CommandError>>,
    begun: Instant,
    answered: &dyn Fn(usize),
) -> Result<Timings, CommandError> {
    let (mut all, mut refused) = (Vec::new(), 0);
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.try_next().await? {
        match answer {
            Some(timing) => all.push(timing),
            None => refused += 1,
        }
        answered(all.len() + refused);
    }
    Ok(Timings { batches: vec![all], refused, seconds: begun.elapsed().as_secs_f64() })
}

/// When each request is sent, where that does not depend on answers.
fn moments(arrivals: Arrivals, count: usize) -> Vec<Duration> {
    let mut at = 0.0;
    let next = |n| match arrivals {
        Arrivals::Steady { rate } => Duration::from_secs_f64(n as f64 / rate),
        Arrivals::Random { rate, seed } => {
            at -= (1.0 - uniform(seed, n)).ln() / rate;
            Duration::from_secs_f64(at)
        }
        Arrivals::Batches(_) | Arrivals::Clients(_) => Duration::ZERO,
    };
    let timed = matches!(arrivals, Arrivals::Steady { .. } | Arrivals::Random { .. });
    (0..if timed { count as u64 } else { 0 }).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_moments_are_as_far_apart_as_the_rate_says() {
        let moments = moments(Arrivals::Steady { rate: 4.0 }, 5);
        assert_eq!(moments, [0, 250, 500, 750, 1000].map(Duration::from_millis));
    }

    #[test]
    fn random_moments_come_at_their_rate_and_again_with_their_seed() {
        let of = |seed| moments(Arrivals::Random { rate: 20.0, seed }, 10_000);
        let moments = of(7);
        assert!(moments.is_sorted());
        assert!((moments[9_999].as_secs_f64() - 500.0).abs() < 25.0, "{:?}", moments[9_999]);
        assert_eq!(moments, of(7));
        assert!(moments != of(8), "another seed gives the same moments");
        // Intervals of a process of Poisson's vary as much as they are long.
        let at: Vec<f64> = moments.iter().map(Duration::as_secs_f64).collect();
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let variance = gaps.iter().map(|gap| (gap - 0.05).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() - 0.05).abs() < 0.005, "{variance}");
    }
}

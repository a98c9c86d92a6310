//! Sends requests to the engine in one of several orders, and notes when each of their tokens came.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep_until;

use super::prompts::Prompts;
use crate::commands::CommandError;
use crate::engine::{Engine, Event, Request, Sampling, uniform};

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    /// So many at once, and the next when all of them are answered.
    Batches(usize),
    /// All at once.
    AtOnce,
    /// By so many clients, each of which sends its next request when it has its answer.
    Clients(usize),
    /// At random moments, a process of Poisson's, whether others are answered or not.
    Random {
        /// Requests a second.
        rate: f64,
        /// Same seed, same moments.
        seed: u64,
    },
}

/// What is sent where.
pub struct Load<'a> {
    /// Answers.
    pub engine: &'a Engine,
    /// Asks.
    pub prompts: &'a Prompts,
    /// Tokens of each answer.
    pub output_tokens: usize,
}

/// When one request was sent and when its tokens came.
#[derive(Clone, Debug)]
pub struct Timing {
    /// When it was sent.
    pub sent: Instant,
    /// When each token came.
    pub tokens: Vec<Instant>,
}

/// Those of all requests, batch by batch where they were sent so.
pub struct Timings {
    /// Of each batch.
    pub batches: Vec<Vec<Timing>>,
    /// From the first request to the last token.
    pub seconds: f64,
}

impl Load<'_> {
    /// Sends the requests of some numbers; `answered` is told how many have been answered.
    ///
    /// # Errors
    /// The first request that fails.
    pub async fn run(
        &self,
        requests: Range<usize>,
        arrivals: Arrivals,
        answered: &dyn Fn(usize),
    ) -> Result<Timings, CommandError> {
        let begun = Instant::now();
        let count = requests.len();
        let (size, together) = match arrivals {
            Arrivals::Batches(size) => (size, size),
            Arrivals::Clients(clients) => (count, clients),
            Arrivals::AtOnce | Arrivals::Random { .. } => (count, count),
        };
        let moments = moments(arrivals, count);
        let (mut batches, mut done) = (Vec::new(), 0);
        for first in (0..count).step_by(size.max(1)) {
            let ask = |n: usize| self.ask(requests.start + n, moments.get(n).map(|after| begun + *after));
            let numbers = first..count.min(first + size);
            let mut asked = stream::iter(numbers).map(ask).buffer_unordered(together.max(1));
            let mut batch = Vec::with_capacity(size);
            while let Some(timing) = asked.try_next().await? {
                batch.push(timing);
                done += 1;
                answered(done);
            }
            batches.push(batch);
        }
        Ok(Timings { batches, seconds: begun.elapsed().as_secs_f64() })
    }

    async fn ask(&self, n: usize, moment: Option<Instant>) -> Result<Timing, CommandError> {
        if let Some(moment) = moment {
            sleep_until(moment.into()).await;
        }
        let request = Request {
            prompt: self.prompts.nth(n),
            sampling: Sampling::default(),
            max_new_tokens: self.output_tokens,
            stop_ids: Vec::new(),
        };
        let sent = Instant::now();
        let failed = |why: &dyn ToString| CommandError::Compute(why.to_string());
        let mut answer = self.engine.submit(request).map_err(|error| failed(&error))?;
        let mut tokens = Vec::with_capacity(self.output_tokens);
        loop {
            match answer.next().await {
                Some(Event::Token { .. }) => tokens.push(Instant::now()),
                Some(Event::Finished(_)) => return Ok(Timing { sent, tokens }),
                Some(Event::Failed(why)) => return Err(failed(&why)),
                None => return Err(failed(&"the engine gave no end of an answer")),
            }
        }
    }
}

/// When each request is sent, where that does not depend on answers.
fn moments(arrivals: Arrivals, count: usize) -> Vec<Duration> {
    let Arrivals::Random { rate, seed } = arrivals else { return Vec::new() };
    let mut at = 0.0;
    let next = |n| {
        at -= (1.0 - uniform(seed, n)).ln() / rate;
        Duration::from_secs_f64(at)
    };
    (0..count as u64).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_moments_come_at_their_rate_and_again_with_their_seed() {
        let of = |seed| moments(Arrivals::Random { rate: 20.0, seed }, 10_000);
        let moments = of(7);
        assert!(moments.is_sorted());
        assert!((moments[9_999].as_secs_f64() - 500.0).abs() < 25.0, "{:?}", moments[9_999]);
        assert_eq!(moments, of(7));
        assert_ne!(moments, of(8));
        // Intervals of a process of Poisson's vary as much as they are long.
        let gaps: Vec<f64> = moments.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
        let variance = gaps.iter().map(|gap| (gap - 0.05).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() - 0.05).abs() < 0.005, "{variance}");
    }
}

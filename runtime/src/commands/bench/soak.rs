//! A long load of all kinds of requests near the most that a machine can answer: whether memory or blocks leak, how
//! long tokens take, and how much longer for others while large pictures come in.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::Serialize;

use super::figures::{Quantiles, first_tokens, next_tokens};
use super::load::{Arrivals, Ask, Load, Timings};
use super::mix::Mix;
use super::{async_runtime, progress};
use crate::args::BenchArgs;
use crate::commands::CommandError;
use crate::device;
use crate::engine::{Engine, Event, Request};

/// Share of the peak at which requests come.
const SHARE: f64 = 0.95;
/// Parts of the time: for the peak, and for each of the two loads with and without large pictures.
const SHORT_PART: u32 = 24;
/// Moments at which memory is looked at.
const SAMPLES: u32 = 36;
/// First numbers of loads, so that none sends what another has sent.
const PEAK: usize = 1 << 40;
const RANDOM: usize = 2 << 40;
/// Large pictures a second beside the streams of others.
const PICTURES_A_SECOND: f64 = 1.0;
/// Times that a short request is asked until its blocks were seen.
const LOOKS: usize = 200;

/// What a soak showed.
#[derive(Debug, Serialize)]
pub struct Soak {
    /// Requests a second of as many clients as the batch has.
    pub peak_requests_per_second: f64,
    /// Requests a second that were sent.
    pub request_rate: f64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests that were answered to their end.
    pub answered: usize,
    /// Requests whose client left before.
    pub cancelled: usize,
    /// Requests for which the queue had no room.
    pub refused: usize,
    /// Tokens of all answers.
    pub generated_tokens: usize,
    /// From a request to its first token.
    pub first_token_ms: Quantiles,
    /// From a token to the next of its answer.
    pub inter_token_ms: Quantiles,
    /// Sequences that gave their blocks up for others.
    pub preemptions: u64,
    /// When nothing ran but a short request, before and after.
    pub idle: [Idle; 2],
    /// Bytes of the device's memory, by seconds, where it tells.
    pub memory: Vec<(f64, u64)>,
    /// Others' tokens while large pictures come in.
    pub beside_pictures: Beside,
}

/// What a short request finds when it is alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// Share of the blocks in use, its own.
    pub kv_usage: f64,
    /// Bytes of the device's memory that are taken, where it tells.
    pub taken_bytes: Option<u64>,
    /// Those among them that are rows of pictures, kept for whoever shows them again.
    pub picture_bytes: u64,
}

/// How others' answers go on while large pictures come in.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// Streams without pictures, all the time.
    pub streams: usize,
    /// Large pictures a second, each another.
    pub pictures_per_second: f64,
    /// Pictures that were answered.
    pub pictures: usize,
    /// Tiles of each.
    pub tiles: usize,
    /// From a token of a stream to its next, without pictures.
    pub without_ms: Quantiles,
    /// The same, with them.
    pub with_ms: Quantiles,
    /// With them by without, of 99 in 100.
    pub p99_ratio: f64,
}

/// Runs it for the seconds of `args`.
///
/// # Errors
/// The first request that fails.
pub fn run(args: &BenchArgs, mix: &Mix, engine: &Engine, device: &Device) -> Result<Soak, CommandError> {
    let soak = Soaking { mix, engine, device, clients: args.largest_batch() };
    let (whole, short) =
        (Duration::from_secs(args.seconds.into()), Duration::from_secs(args.seconds.into()) / SHORT_PART);
    progress("soak: looking for the peak");
    // The first of everything that is made on its first use does not count.
    soak.clients_for(short, &|n| mix.nth(n))?;
    let peak = soak.clients_for(short, &|n| mix.nth(PEAK + n))?;
    let peak_requests_per_second = requests(&peak) as f64 / peak.seconds;
    let before = soak.idle()?;
    let rate = SHARE * peak_requests_per_second;
    progress(&format!(
        "soak: {rate:.2} requests a second for {} s, peak {peak_requests_per_second:.2}",
        whole.as_secs()
    ));
    let (timings, memory) = soak.random_for(whole, rate, args.seed)?;
    let after = soak.idle()?;
    let all = || timings.batches.iter().flatten();
    let cancelled = all().filter(|timing| timing.cancelled).count();
    Ok(Soak {
        peak_requests_per_second,
        request_rate: rate,
        seconds: timings.seconds,
        answered: requests(&timings) - cancelled,
        cancelled,
        refused: timings.refused,
        generated_tokens: all().map(|timing| timing.tokens.len()).sum(),
        first_token_ms: first_tokens(all()),
        inter_token_ms: next_tokens(all()),
        preemptions: engine.snapshot().counts.preemptions,
        idle: [before, after],
        memory,
        beside_pictures: soak.beside(short)?,
    })
}

fn requests(timings: &Timings) -> usize {
    timings.batches.iter().map(Vec::len).sum()
}

/// Where a load has come to.
struct Soaking<'a> {
    mix: &'a Mix,
    engine: &'a Engine,
    device: &'a Device,
    clients: usize,
}

impl Soaking<'_> {
    /// What `ask` gives, by all clients for so long.
    fn clients_for(&self, time: Duration, ask: &(dyn Fn(usize) -> Ask + Sync)) -> Result<Timings, CommandError> {
        let end = Instant::now() + time;
        let asks = |n| (Instant::now() < end).then(|| ask(n));
        let load = Load { engine: self.engine, asks: &asks };
        load.run(&async_runtime()?, 0..usize::MAX, Arrivals::Clients(self.clients), &|_| {})
    }

    /// All kinds at random moments; and bytes of memory by seconds.
    fn random_for(&self, time: Duration, rate: f64, seed: u64) -> Result<(Timings, Vec<(f64, u64)>), CommandError> {
        let count = (rate * time.as_secs_f64()).ceil().max(1.0) as usize;
        let (begun, samples) = (Instant::now(), RefCell::new(Vec::new()));
        let shown = |done: usize| {
            let seconds = begun.elapsed().as_secs_f64();
            let due = samples.borrow().len() as f64 * time.as_secs_f64() / f64::from(SAMPLES);
            if seconds >= due {
                samples.borrow_mut().push((seconds, self.taken().ok().flatten().unwrap_or_default()));
                progress(&format!("soak: {done} of {count} requests answered in {seconds:.0} s"));
            }
        };
        // Other numbers, so other requests, than those before.
        let first = RANDOM;
        let load = Load { engine: self.engine, asks: &|n| Some(self.mix.nth(n)) };
        let timings = load.run(&async_runtime()?, first..first + count, Arrivals::Random { rate, seed }, &shown)?;
        let memory = if self.device.is_cpu() { Vec::new() } else { samples.into_inner() };
        Ok((timings, memory))
    }

    /// Streams of text alone, without pictures beside them and with.
    fn beside(&self, time: Duration) -> Result<Beside, CommandError> {
        progress("soak: streams of text, then the same beside large pictures");
        let alone = self.clients_for(time, &|n| self.mix.stream(n))?;
        let pictures = (time.as_secs_f64() * PICTURES_A_SECOND).ceil().max(1.0) as usize;
        let over = AtomicBool::new(false);
        let (streams, seen) = std::thread::scope(|scope| {
            let streams = scope.spawn(|| {
                let asks = |n| (!over.load(Ordering::Relaxed)).then(|| self.mix.stream(PEAK + n));
                let load = Load { engine: self.engine, asks: &asks };
                load.run(&async_runtime()?, 0..usize::MAX, Arrivals::Clients(self.clients), &|_| {})
            });
            let load = Load { engine: self.engine, asks: &|n| Some(self.mix.large(n)) };
            let arrivals = Arrivals::Steady { rate: PICTURES_A_SECOND };
            let seen = async_runtime().map_err(CommandError::from);
            let seen = seen.and_then(|runtime| load.run(&runtime, 0..pictures, arrivals, &|_| {}));
            over.store(true, Ordering::Relaxed);
            (streams.join(), seen)
        });
        let gone = |_| CommandError::Compute("the thread that sends requests ended by a bug".to_owned());
        let (streams, seen) = (streams.map_err(gone)??, seen?);
        let quantiles = |timings: &Timings| next_tokens(timings.batches.iter().flatten());
        let (without_ms, with_ms) = (quantiles(&alone), quantiles(&streams));
        Ok(Beside {
            streams: self.clients,
            pictures_per_second: PICTURES_A_SECOND,
            pictures: requests(&seen),
            tiles: self.mix.large_tiles(),
            without_ms,
            with_ms,
            p99_ratio: with_ms.p99 / without_ms.p99,
        })
    }

    /// What a short request finds. Its blocks are counted before its first token is computed, so the first token shows
    /// them and none else; unless it has ended before anybody could look, and then another is asked.
    fn idle(&self) -> Result<Idle, CommandError> {
        async_runtime()?.block_on(async {
            let mut kv_usage = 0.0;
            for _ in 0..LOOKS {
                self.engine.idle().await;
                kv_usage = self.first_token().await?;
                if kv_usage > 0.0 {
                    break;
                }
            }
            let picture_bytes = self.engine.snapshot().picture_bytes;
            Ok(Idle { kv_usage, taken_bytes: self.taken()?, picture_bytes })
        })
    }

    /// The share of the blocks in use at the first token of a short request, 0 if it has ended meanwhile.
    async fn first_token(&self) -> Result<f64, CommandError> {
        let Ask { prompt, .. } = self.mix.shortest();
        let request = Request { prompt, max_new_tokens: 2, ..Request::default() };
        let failed = |why: String| CommandError::Compute(why);
        let mut answer = self.engine.submit(request).map_err(|error| failed(error.to_string()))?;
        let mut kv_usage = None;
        loop {
            match answer.next().await {
                Some(Event::Token { .. }) => kv_usage = kv_usage.or(Some(self.engine.snapshot().kv_usage)),
                Some(Event::Finished(_)) => return Ok(kv_usage.unwrap_or_default()),
                Some(Event::Failed(why)) => return Err(failed(why.to_string())),
                None => return Err(failed("the engine gave no end of an answer".to_owned())),
            }
        }
    }

    fn taken(&self) -> Result<Option<u64>, CommandError> {
        let taken = device::taken(self.device)?;
        Ok(taken.map(|taken| taken.used_bytes + taken.beside_bytes))
    }
}

//! A service of one model: requests that arrive by a trace, one bounded queue before all replicas, and replicas that
//! take a while to load. Time is a number; nothing here waits.

use std::collections::VecDeque;

/// Requests that a replica computes at the same time.
pub const SLOTS: i32 = 8;
/// Seconds that a request takes once a replica has it, where a trace says nothing else.
pub const SERVICE_SECONDS: f64 = 8.0;
/// Tokens of an answer for each of them.
const TOKENS_PER_SECOND: f64 = 20.0;
/// Requests that may wait; more are refused.
pub const QUEUE: usize = 256;
/// Seconds that a request may wait before its first token is late.
pub const TARGET_SECONDS: f64 = 10.0;
/// Fewest and most replicas.
pub const LIMITS: (i32, i32) = (1, 20);
/// Seconds between two moments of the model.
pub const STEP_SECONDS: f64 = 0.25;

/// Arrivals over time, and what befalls the autoscaler meanwhile.
pub struct Trace {
    /// A word.
    pub name: &'static str,
    /// How long it is.
    pub seconds: f64,
    /// Arrivals a second.
    pub rate: fn(f64) -> f64,
    /// Seconds that a request takes that a replica begins.
    pub service: fn(f64) -> f64,
    /// When no metric can be read.
    pub blind: (f64, f64),
    /// When the autoscaler starts anew.
    pub restart: Option<f64>,
}

impl Trace {
    /// Replicas that complete what arrives.
    pub fn needed(&self, now: f64) -> f64 {
        (self.rate)(now) * (self.service)(now) / f64::from(SLOTS)
    }
}

/// What an autoscaler can see.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are computed.
    pub running: usize,
    /// Replicas that serve.
    pub ready: i32,
    /// Replicas that were ordered.
    pub ordered: i32,
    /// Requests that came, refused ones included, since the start.
    pub arrived: u64,
    /// Requests that found the queue full.
    pub refused: u64,
}

impl Seen {
    /// Requests that wait or are computed.
    pub fn load(&self) -> f64 {
        (self.waiting + self.running) as f64
    }
}

/// What an autoscaler that asks each replica can see of one.
pub struct SeenReplica {
    /// Unlike any other's.
    pub number: u64,
    /// It serves.
    pub ready: bool,
    /// Requests that it computes.
    pub running: usize,
    /// Requests that are done.
    pub finished: u64,
    /// Tokens of their answers.
    pub tokens: f64,
}

/// What came of a trace.
#[derive(Default)]
pub struct Outcome {
    /// Seconds in which the replicas that serve complete less than arrives.
    pub short_seconds: f64,
    /// Seconds of all replicas, those that load and drain included.
    pub replica_seconds: f64,
    /// Requests that waited too long or were refused.
    pub late: u64,
    /// Of them those refused.
    pub refused: u64,
    /// All requests.
    pub requests: u64,
    /// Time and replicas ordered, once a few seconds.
    pub history: Vec<(f64, i32)>,
}

struct Replica {
    number: u64,
    finished: u64,
    tokens: f64,
    ready_at: f64,
    draining: bool,
    /// When each of its requests is done, and the tokens of its answer.
    ends: Vec<(f64, f64)>,
}

/// The service at one moment.
pub struct World {
    /// Seconds from the order of a replica until it serves.
    load_seconds: f64,
    replicas: Vec<Replica>,
    numbers: u64,
    queue: VecDeque<f64>,
    seen: Seen,
    /// Result so far.
    pub outcome: Outcome,
}

impl World {
    /// One replica that serves already; others load for so long.
    pub fn new(load_seconds: f64) -> Self {
        let mut world = Self {
            load_seconds,
            replicas: Vec::new(),
            numbers: 0,
            queue: VecDeque::new(),
            seen: Seen::default(),
            outcome: Outcome::default(),
        };
        world.add(0.0);
        world
    }

    fn add(&mut self, ready_at: f64) {
        self.numbers += 1;
        let (number, ends) = (self.numbers, Vec::new());
        self.replicas.push(Replica { number, finished: 0, tokens: 0.0, ready_at, draining: false, ends });
    }

    /// Each replica that stays.
    pub fn replicas(&self, now: f64) -> Vec<SeenReplica> {
        let seen = |r: &Replica| SeenReplica {
            number: r.number,
            ready: r.ready_at <= now,
            running: r.ends.len(),
            finished: r.finished,
            tokens: r.tokens,
        };
        self.replicas.iter().filter(|r| !r.draining).map(seen).collect()
    }

    /// What there is to see.
    pub fn seen(&self, now: f64) -> Seen {
        let staying = || self.replicas.iter().filter(|r| !r.draining);
        Seen {
            waiting: self.queue.len(),
            running: self.replicas.iter().map(|r| r.ends.len()).sum(),
            ready: count(staying().filter(|r| r.ready_at <= now)),
            ordered: count(staying()),
            ..self.seen
        }
    }

    /// Orders replicas, or takes those with the fewest requests away once they have finished.
    pub fn order(&mut self, wanted: i32, now: f64) {
        let have = self.seen(now).ordered;
        for _ in have..wanted {
            self.add(now + self.load_seconds);
        }
        for _ in wanted..have {
            let staying = self.replicas.iter_mut().filter(|r| !r.draining);
            if let Some(victim) = staying.min_by_key(|r| (r.ready_at <= now, r.ends.len())) {
                victim.draining = true;
            }
        }
    }

    /// One step of a trace, with so many arrivals.
    pub fn step(&mut self, arrivals: usize, trace: &Trace, now: f64) {
        for replica in &mut self.replicas {
            for (_, tokens) in replica.ends.extract_if(.., |(end, _)| *end <= now) {
                replica.finished += 1;
                replica.tokens += tokens;
            }
        }
        self.replicas.retain(|r| !r.draining || !r.ends.is_empty());
        self.seen.arrived += arrivals as u64;
        let room = QUEUE - self.queue.len();
        self.queue.extend(std::iter::repeat_n(now, arrivals.min(room)));
        let refused = arrivals.saturating_sub(room) as u64;
        self.seen.refused += refused;
        self.dispatch((trace.service)(now), now);
        let serving = self.replicas.iter().filter(|r| !r.draining && r.ready_at <= now).count();
        let ordered = self.seen(now).ordered;
        let outcome = &mut self.outcome;
        (outcome.requests, outcome.refused) = (self.seen.arrived, self.seen.refused);
        outcome.late += refused;
        outcome.replica_seconds += self.replicas.len() as f64 * STEP_SECONDS;
        if (serving as f64) < trace.needed(now) {
            outcome.short_seconds += STEP_SECONDS;
        }
        outcome.history.push((now, ordered));
    }

    fn dispatch(&mut self, service_seconds: f64, now: f64) {
        while !self.queue.is_empty() {
            let open = |r: &&mut Replica| !r.draining && r.ready_at <= now && r.ends.len() < SLOTS as usize;
            let Some(replica) = self.replicas.iter_mut().filter(open).min_by_key(|r| r.ends.len()) else { return };
            replica.ends.push((now + service_seconds, TOKENS_PER_SECOND * service_seconds));
            let came = self.queue.pop_front().unwrap_or(now);
            self.outcome.late += u64::from(now - came > TARGET_SECONDS);
        }
    }
}

fn count<'a>(replicas: impl Iterator<Item = &'a Replica>) -> i32 {
    i32::try_from(replicas.count()).unwrap_or(i32::MAX)
}

/// Arrivals by a Poisson process whose rate changes, the same for the same seed.
pub struct Arrivals {
    state: u64,
    /// How much of the unit rate is left until the next.
    left: f64,
}

impl Arrivals {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        let mut arrivals = Self { state: seed, left: 0.0 };
        arrivals.left = arrivals.gap();
        arrivals
    }

    /// Exponential with mean 1, from splitmix64.
    fn gap(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }

    /// How many come within one step.
    pub fn within(&mut self, rate: f64) -> usize {
        let (mut passed, mut count) = (rate * STEP_SECONDS, 0);
        while passed >= self.left {
            passed -= self.left;
            self.left = self.gap();
            count += 1;
        }
        self.left -= passed;
        count
    }
}

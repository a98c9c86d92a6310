//! Requests that become shorter or longer: the rate that was learnt from the others says too little or too much.

use super::*;

/// How long a request is computed, and the tokens of its answer.
#[derive(Clone, Copy)]
struct Request {
    seconds: f64,
    tokens: f64,
}

const LONG: Request = Request { seconds: 0.09, tokens: 150.0 };
const SHORT: Request = Request { seconds: 0.022, tokens: 10.0 };

/// Clients that ask again as soon as they are answered, at replicas of two places; these start in one tick.
struct Clients {
    policy: Policy,
    memory: Memory,
    ordered: i32,
    ready: i32,
    ticks: u32,
    last: Option<Decision>,
}

impl Clients {
    /// With windows of a few seconds, and at most three replicas.
    fn new() -> Self {
        let spec = serde_json::json!({"maxReplicas": 3, "stableSeconds": 8, "panicSeconds": 4,
                                      "downStabilizationSeconds": 8, "target": {"queueDepth": 1, "concurrency": 2}});
        let policy = Policy::new(&serde_json::from_value(spec).unwrap(), 2, true);
        Self { policy, memory: Memory::new(Duration::ZERO), ordered: 1, ready: 1, ticks: 0, last: None }
    }

    /// So many ask such a question for a tick.
    fn tick(&mut self, clients: f64, request: Request) {
        let places = 2.0 * f64::from(self.ready);
        let running = clients.min(places);
        let computed_seconds = running * TICK.as_secs_f64();
        let completed = computed_seconds / request.seconds;
        let busy = if clients > places { 1.0 } else { 0.0 };
        let sample = Sample {
            elapsed: TICK,
            ready: self.ready,
            load: Some(clients),
            capacity: Some(2.0),
            arrived: Some(completed),
            refused: Some(0.0),
            finished: busy * completed,
            busy_seconds: busy * f64::from(self.ready) * TICK.as_secs_f64(),
            busy_tokens: busy * completed * request.tokens,
            completed,
            computed_seconds,
            tokens: completed * request.tokens,
            ..Sample::default()
        };
        self.ticks += 1;
        let decision = step(&self.policy, &mut self.memory, self.ordered, sample, TICK * self.ticks);
        (self.ready, self.ordered) = (self.ordered, decision.to);
        self.last = Some(decision);
    }
}

#[test]
fn one_client_with_quick_questions_after_many_with_long_ones_needs_one_replica() {
    // A server that does not say how many tokens it has generated is believed to be as slow as it was.
    for told in [1.0, 0.0] {
        let of = |request: Request| Request { tokens: told * request.tokens, ..request };
        let mut clients = Clients::new();
        (0..20).for_each(|_| clients.tick(20.0, of(LONG)));
        assert_eq!((clients.ordered, clients.memory.completion_rate().unwrap().round()), (3, 22.0));
        let mut history = Vec::new();
        for _ in 0..15 {
            clients.tick(1.0, of(SHORT));
            history.push((clients.ordered, clients.last.clone().unwrap().inputs));
        }
        // The calm window passes, and then the one by which replicas go.
        assert_eq!(history[9].0, 1, "tokens told: {told}; {history:?}");
        assert!(history[9..].iter().all(|(ordered, _)| *ordered == 1), "{history:?}");
        // By the rate of long ones, what arrives would need three.
        let arrivals = history[14].1.arrivals.unwrap();
        assert!(arrivals > 40.0 && clients.memory.completion_rate().unwrap() < 22.5, "{history:?}");
    }
}

#[test]
fn shorter_answers_need_fewer_replicas_of_which_no_more_than_half_go_at_a_time() {
    let mut world = of_seven(0.5);
    (world.rate, world.tokens) = (1.5, world.tokens / 3.0);
    world.run(&policy(30), 3.0, 380.0);
    assert_eq!(world.ordered, 4, "after the down window {:?}", world.decisions);
    world.run(&policy(30), 3.0, 320.0);
    assert_eq!(world.ordered, 3, "after another {:?}", world.decisions);
    world.run(&policy(30), 3.0, 1200.0);
    assert_eq!(world.ordered, 3, "and for good {:?}", world.decisions);
}

/// Replicas that complete so many a second, of which seven complete six times as many, with room for chance.
fn of_seven(rate: f64) -> World {
    let mut world = World::new(rate, 20.0);
    // One alone has too much to do, which teaches the rate.
    world.run(&policy(1), 2.0 * rate, 60.0 / rate);
    world.run(&policy(30), 6.0 * rate, 1800.0);
    assert_eq!((world.ordered, world.memory.completion_rate()), (7, Some(rate)));
    world.decisions.clear();
    world
}

#[test]
fn places_that_are_taken_for_half_as_long_complete_no_more_than_twice_as_much() {
    let mut world = of_seven(0.125);
    (world.rate, world.tokens) = (0.25, world.tokens / 15.0);
    world.run(&policy(30), 0.75, 1800.0);
    assert_eq!(world.ordered, 4, "{:?}", world.decisions);
    assert!(world.decisions.iter().all(|(_, decision)| decision.to >= 4), "{:?}", world.decisions);
}

#[test]
fn answers_that_are_shorter_by_chance_are_taken_for_no_shorter_ones() {
    let policy = policy(9);
    let rate = |tokens: f64| {
        let mut memory = Memory::new(Duration::ZERO);
        let busy = Sample { finished: 90.0, busy_seconds: 90.0, busy_tokens: 9000.0, ..Sample::default() };
        memory.take_in(&policy, busy, TICK);
        let quiet = Sample { completed: 25.0, computed_seconds: 50.0, tokens: 25.0 * tokens, ..Sample::default() };
        memory.take_in(&policy, quiet, 2 * TICK);
        memory.completion_rate_now(policy.stable, SLOTS, 2 * TICK)
    };
    // With 25 of them, half again as many tokens each are within two and a half deviations.
    assert_eq!(rate(100.0), Some(1.0));
    assert_eq!(rate(70.0), Some(1.0));
    assert_eq!(rate(50.0), Some(100.0 / 75.0));
    assert_eq!(rate(0.0), Some(1.0), "tokens that nobody counts");
}

#[test]
fn longer_answers_have_their_replicas_in_time() {
    let mut world = World::new(3.0, 20.0);
    world.tokens = 33.0;
    world.run(&policy(30), 0.5, 120.0);
    world.run(&policy(30), 6.0, 1200.0);
    assert!((3..=4).contains(&world.ordered), "{}", world.ordered);
    (world.rate, world.tokens) = (1.0, 100.0);
    let changed = world.seconds;
    while world.ready() < 6 {
        world.run(&policy(30), 6.0, 2.0);
    }
    let took = world.seconds - changed;
    assert!(took <= 60.0, "{took} s, of which one takes 20 s to start");
    assert!(world.ordered <= 12, "{}", world.ordered);
    world.run(&policy(30), 6.0, 900.0);
    assert!((7..=8).contains(&world.ordered), "{}", world.ordered);
}

/// Replicas that compute one request no slower than many, so that those that are half busy have few in flight.
struct Shared {
    rate: f64,
    tokens: f64,
    ordered: i32,
    ready: i32,
    waiting: f64,
    ticks: u32,
    memory: Memory,
    history: Vec<i32>,
}

impl Shared {
    fn new(ordered: i32) -> Self {
        let memory = Memory::new(Duration::ZERO);
        Self { rate: 1.0, tokens: 100.0, ordered, ready: ordered, waiting: 0.0, ticks: 0, memory, history: Vec::new() }
    }

    fn tick(&mut self, policy: &Policy, per_second: f64) {
        let (seconds, ready) = (TICK.as_secs_f64(), f64::from(self.ready));
        let (arrived, can) = (per_second * seconds, self.rate * seconds * ready);
        let completed = (self.waiting + arrived).min(can);
        self.waiting += arrived - completed;
        let share = per_second / (self.rate * ready);
        let full = self.waiting > 0.0;
        let running = if full { ready * SLOTS } else { ready * (share / (1.0 - share)).clamp(0.0, SLOTS) };
        let sample = Sample {
            elapsed: TICK,
            ready: self.ready,
            load: Some(running + self.waiting),
            capacity: Some(SLOTS),
            arrived: Some(arrived),
            refused: Some(0.0),
            finished: if full { completed } else { 0.0 },
            busy_seconds: if full { seconds * ready } else { 0.0 },
            busy_tokens: if full { completed * self.tokens } else { 0.0 },
            completed,
            computed_seconds: running * seconds,
            tokens: completed * self.tokens,
            ..Sample::default()
        };
        self.ticks += 1;
        let decision = step(policy, &mut self.memory, self.ordered, sample, TICK * self.ticks);
        // They start in a tick.
        (self.ready, self.ordered) = (self.ordered, decision.to);
        self.history.push(self.ordered);
    }

    fn run(&mut self, policy: &Policy, per_second: f64, seconds: u32) {
        (0..seconds / 2).for_each(|_| self.tick(policy, per_second));
    }
}

#[test]
fn few_in_flight_are_no_reason_to_go_while_requests_are_as_long_as_before() {
    let policy = policy(30);
    let mut service = Shared::new(4);
    service.run(&policy, 6.0, 120);
    assert!(service.memory.completion_rate().is_some());
    service.run(&policy, 6.0, 3600);
    // At seven replicas six are in flight at each, at twelve one: places tell nothing of what such a replica completes.
    assert!((7..=8).contains(&service.ordered), "{}", service.ordered);
    let fewest = service.history[60..].iter().min().unwrap();
    assert!(*fewest >= 7, "{fewest}");
}

#[test]
fn answers_that_are_shorter_than_their_requests_are_quicker_mislead_once_and_by_half() {
    let policy = policy(30);
    let mut service = Shared::new(8);
    service.run(&policy, 12.2, 1200);
    assert!((13..=14).contains(&service.ordered), "{}", service.ordered);
    // By their tokens they are fifteen times as quick, and in truth by a third: ten complete what arrives.
    (service.rate, service.tokens) = (1.3, service.tokens / 15.0);
    let changed = service.history.len();
    service.run(&policy, 12.2, 7200);
    let history = &service.history[changed..];
    assert!(history.windows(2).all(|pair| pair[1] >= pair[0] / 2), "{history:?}");
    let fewest = *history.iter().min().unwrap();
    assert!((7..=9).contains(&fewest), "half of them at the least, and too few, or this proves nothing: {history:?}");
    let last_short = history.iter().rposition(|ordered| *ordered < 10).unwrap();
    let first_short = history.iter().position(|ordered| *ordered < 10).unwrap();
    assert!(last_short - first_short <= 15, "{history:?}");
    assert!((10..=12).contains(&service.ordered), "{}", service.ordered);
}

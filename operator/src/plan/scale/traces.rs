//! Traces: a little model of replicas that load slowly, driven by [`step`] on a clock of its own.

use proptest::prelude::*;

use super::*;

mod arrivals;
mod late;
mod mix;

const TICK: Duration = Duration::from_secs(2);

fn policy(max: i32) -> Policy {
    Policy {
        min: 1,
        max,
        queue_depth: 2.0,
        concurrency: None,
        assumed_capacity: 8.0,
        stable: Duration::from_secs(60),
        panic: Duration::from_secs(6),
        down: Some(Duration::from_secs(300)),
        late: Duration::ZERO,
        idle: Duration::from_secs(600),
    }
}

fn to_zero(max: i32) -> Policy {
    Policy { min: 0, down: Some(Duration::from_secs(60)), ..policy(max) }
}

/// Replicas of `SLOTS` slots, each completing `rate` requests a second when all slots are taken,
/// and a queue of 64 for each.
struct World {
    rate: f64,
    /// Of an answer.
    tokens: f64,
    start_seconds: f64,
    /// Seconds until each replica is ready.
    replicas: Vec<f64>,
    load: f64,
    refused: f64,
    seconds: f64,
    ordered: i32,
    most_ordered: i32,
    memory: Memory,
    decisions: Vec<(f64, Decision)>,
}

const SLOTS: f64 = 8.0;

impl World {
    fn new(rate: f64, start_seconds: f64) -> Self {
        Self {
            rate,
            tokens: 100.0,
            start_seconds,
            replicas: vec![0.0],
            load: 0.0,
            refused: 0.0,
            seconds: 0.0,
            ordered: 1,
            most_ordered: 1,
            memory: Memory::new(Duration::ZERO),
            decisions: Vec::new(),
        }
    }

    fn ready(&self) -> i32 {
        i32::try_from(self.replicas.iter().filter(|s| **s <= 0.0).count()).unwrap()
    }

    /// One tick of arrivals; `hidden` keeps the operator from seeing any of it.
    fn tick(&mut self, policy: &Policy, per_second: f64, hidden: bool) -> Decision {
        let dt = TICK.as_secs_f64();
        self.seconds += dt;
        self.replicas.iter_mut().for_each(|s| *s -= dt);
        let ready = f64::from(self.ready());
        let (arrived, waiting_before) = (per_second * dt, self.load > ready * SLOTS);
        let room = (ready * (SLOTS + 64.0) - self.load).max(0.0);
        let accepted = arrived.min(room);
        self.refused = arrived - accepted;
        self.load += accepted;
        let finished = (self.rate * dt * ready).min(self.rate / SLOTS * self.load * dt).min(self.load);
        self.load -= finished;
        // The last request ends some time.
        self.load = if self.load < 1e-6 { 0.0 } else { self.load };
        let busy = waiting_before && self.load > ready * SLOTS;
        let sample = Sample {
            elapsed: TICK,
            ready: self.ready(),
            load: (!hidden && ready > 0.0).then_some(self.load),
            capacity: Some(SLOTS),
            arrived: (!hidden).then_some(arrived),
            refused: (!hidden).then_some(self.refused),
            finished: if busy && !hidden { finished } else { 0.0 },
            busy_seconds: if busy && !hidden { dt * ready } else { 0.0 },
            busy_tokens: if busy && !hidden { finished * self.tokens } else { 0.0 },
            completed: if hidden { 0.0 } else { finished },
            tokens: if hidden { 0.0 } else { finished * self.tokens },
            computed_seconds: if hidden { 0.0 } else { self.load.min(ready * SLOTS) * dt },
            silent: hidden,
            unheard: false,
        };
        let decision = step(policy, &mut self.memory, self.ordered, sample, Duration::from_secs_f64(self.seconds));
        self.obey(&decision);
        decision
    }

    fn obey(&mut self, decision: &Decision) {
        if decision.to != self.ordered {
            self.decisions.push((self.seconds, decision.clone()));
        }
        self.ordered = decision.to;
        self.most_ordered = self.most_ordered.max(self.ordered);
        self.replicas.truncate(self.ordered as usize);
        self.replicas.resize(self.ordered as usize, self.start_seconds);
    }

    fn run(&mut self, policy: &Policy, per_second: f64, seconds: f64) {
        let until = self.seconds + seconds;
        while self.seconds < until {
            self.tick(policy, per_second, false);
        }
    }
}

#[test]
fn a_step_to_ten_times_one_replicas_load_is_answered_within_15_seconds() {
    let mut world = World::new(1.0, 60.0);
    world.run(&policy(20), 0.5, 120.0);
    assert_eq!(world.ordered, 1);
    world.run(&policy(20), 10.0, 14.0);
    assert!(world.ordered >= 2, "{}", world.ordered);
    world.run(&policy(20), 10.0, 600.0);
    assert!((10..=15).contains(&world.ordered), "{}", world.ordered);
    assert!(world.most_ordered <= 15, "{}", world.most_ordered);
}

#[test]
fn a_ramp_is_followed_without_going_down_in_between() {
    let mut world = World::new(1.0, 10.0);
    for per_second in 1..=8 {
        world.run(&policy(20), f64::from(per_second) * 0.9, 60.0);
    }
    assert!((6..=12).contains(&world.ordered), "{}", world.ordered);
    assert!(world.decisions.windows(2).all(|w| w[0].1.to < w[1].1.to), "{:?}", world.decisions);
}

#[test]
fn after_a_spike_replicas_stay_for_the_down_window_and_then_go() {
    let mut world = World::new(1.0, 10.0);
    world.run(&policy(10), 0.0, 120.0);
    world.run(&policy(10), 6.0, 60.0);
    let peak = world.ordered;
    assert!(peak >= 3, "{peak}");
    let ended = world.seconds;
    world.run(&policy(10), 0.0, 230.0);
    assert_eq!(world.ordered, peak);
    world.run(&policy(10), 0.0, 500.0);
    assert_eq!(world.ordered, 1);
    let first_down = world.decisions.iter().find(|(_, d)| d.reason == decision::LOAD_FELL).unwrap();
    assert!(first_down.0 >= ended + 300.0 - 60.0, "{first_down:?}");
}

#[test]
fn while_no_metrics_are_seen_nothing_shrinks_however_long() {
    let mut world = World::new(1.0, 10.0);
    world.run(&policy(10), 6.0, 300.0);
    let before = world.ordered;
    for _ in 0..3000 {
        world.tick(&policy(10), 0.0, true);
    }
    assert_eq!(world.ordered, before);
    world.run(&policy(10), 0.0, 290.0);
    assert_eq!(world.ordered, before, "the unknown time counts as wanted");
    world.run(&policy(10), 0.0, 200.0);
    assert_eq!(world.ordered, 1);
}

#[test]
fn after_a_restart_the_count_is_kept_until_both_windows_have_passed() {
    let policy = Policy { down: Some(Duration::from_secs(20)), ..policy(10) };
    let mut world = World::new(1.0, 10.0);
    world.run(&policy, 6.0, 300.0);
    let before = world.ordered;
    world.memory = Memory::new(Duration::from_secs_f64(world.seconds));
    world.run(&policy, 0.0, 56.0);
    assert_eq!(world.ordered, before);
    world.run(&policy, 0.0, 120.0);
    assert_eq!(world.ordered, 1);
}

#[test]
fn a_restart_does_not_shorten_the_down_window() {
    let mut world = World::new(1.0, 10.0);
    world.run(&policy(10), 6.0, 300.0);
    let before = world.ordered;
    world.memory = Memory::new(Duration::from_secs_f64(world.seconds));
    world.run(&policy(10), 0.0, 290.0);
    assert_eq!(world.ordered, before);
}

#[test]
fn nothing_shrinks_before_a_replica_was_ready() {
    let policy = policy(10);
    let mut memory = Memory::new(Duration::ZERO);
    for t in 1..1000 {
        let sample = Sample { elapsed: TICK, load: Some(0.0), ..Sample::default() };
        assert_eq!(step(&policy, &mut memory, 4, sample, TICK * t).to, 4);
    }
}

#[test]
fn a_refusal_orders_one_more_once_and_not_again_for_the_same_refusal() {
    let policy = policy(10);
    let mut memory = Memory::new(Duration::ZERO);
    let sample = |ready, refused| Sample {
        elapsed: TICK,
        ready,
        load: Some(4.0),
        capacity: Some(SLOTS),
        refused: Some(refused),
        ..Sample::default()
    };
    let first = step(&policy, &mut memory, 1, sample(1, 3.0), TICK);
    assert_eq!((first.to, first.reason), (2, decision::REQUESTS_REFUSED));
    assert_eq!(step(&policy, &mut memory, 2, sample(1, 2.0), TICK * 2).to, 2, "it is ordered already");
    assert_eq!(step(&policy, &mut memory, 2, sample(2, 0.0), TICK * 3).to, 2);
    assert_eq!(step(&policy, &mut memory, 2, sample(2, 1.0), TICK * 4).to, 3);
}

#[test]
fn more_than_allowed_is_said_and_not_done() {
    let mut world = World::new(1.0, 10.0);
    world.run(&policy(2), 8.0, 200.0);
    let last = world.tick(&policy(2), 8.0, false);
    assert_eq!((last.to, last.limited), (2, true));
    let narrow = Policy { min: 3, max: 3, ..policy(3) };
    let moved = world.tick(&narrow, 8.0, false);
    assert_eq!(moved.to, 3);
}

#[test]
fn a_target_concurrency_below_the_capacity_asks_for_more_replicas() {
    let sample = Sample { elapsed: TICK, ready: 2, load: Some(12.0), capacity: Some(SLOTS), ..Sample::default() };
    let to = |policy: &Policy| step(policy, &mut Memory::new(Duration::ZERO), 2, sample.clone(), TICK).to;
    assert_eq!(to(&policy(10)), 2);
    assert_eq!(to(&Policy { concurrency: Some(2.0), ..policy(10) }), 3);
    assert_eq!(to(&Policy { concurrency: Some(99.0), ..policy(10) }), 2);
}

#[test]
fn a_replica_holds_what_replicas_say_and_while_none_has_said_it_what_is_assumed() {
    let mut memory = Memory::new(Duration::ZERO);
    let mut to = |capacity, tick| {
        let sample = Sample { elapsed: TICK, ready: 1, load: Some(24.0), capacity, ..Sample::default() };
        let decision = step(&policy(10), &mut memory, 1, sample, TICK * tick);
        (decision.to, decision.inputs.per_replica)
    };
    assert_eq!(to(None, 1), (3, 10.0), "8 are assumed, and 2 may wait");
    assert_eq!(to(Some(4.0), 2), (4, 6.0));
    assert_eq!(to(None, 3), (4, 6.0), "nobody has said anything else");
}

#[test]
fn the_last_replica_goes_only_when_nobody_has_asked_for_the_idle_time() {
    let mut world = World::new(1.0, 10.0);
    world.run(&to_zero(5), 0.5, 120.0);
    world.run(&to_zero(5), 0.0, 500.0);
    assert_eq!(world.ordered, 1, "idle for less than 600 s");
    world.run(&to_zero(5), 0.01, 2.0);
    world.run(&to_zero(5), 0.0, 590.0);
    assert_eq!(world.ordered, 1, "one asked in between");
    world.run(&to_zero(5), 0.0, 150.0);
    assert_eq!((world.ordered, world.decisions.last().unwrap().1.reason), (0, decision::IDLE));
}

#[test]
fn what_is_not_seen_may_be_a_request() {
    let mut world = World::new(1.0, 10.0);
    world.run(&to_zero(5), 0.5, 120.0);
    world.run(&to_zero(5), 0.0, 400.0);
    world.tick(&to_zero(5), 0.0, true);
    world.run(&to_zero(5), 0.0, 500.0);
    assert_eq!(world.ordered, 1);
    world.run(&to_zero(5), 0.0, 150.0);
    assert_eq!(world.ordered, 0);
}

#[test]
fn a_model_without_replicas_wakes_for_one_request_and_stays_asleep_for_none() {
    let mut memory = Memory::new(Duration::ZERO);
    let asleep =
        |held: f64| Sample { load: Some(held), arrived: Some(held), silent: true, elapsed: TICK, ..Sample::default() };
    for n in 1..100 {
        let decision = step(&to_zero(5), &mut memory, 0, asleep(0.0), n * TICK);
        assert_eq!(decision.to, 0);
    }
    let decision = step(&to_zero(5), &mut memory, 0, asleep(1.0), 100 * TICK);
    assert_eq!((decision.to, decision.reason), (1, decision::WOKEN));
    // It starts: nothing may take it away before it was ready.
    for n in 101..1000 {
        assert_eq!(step(&to_zero(5), &mut memory, 1, asleep(0.0), n * TICK).to, 1);
    }
}

#[test]
fn the_idle_time_of_a_model_that_started_begins_when_it_is_ready() {
    let policy = to_zero(5);
    let mut memory = Memory::new(Duration::ZERO);
    // A load that is known before any replica is, as Prometheus may tell it.
    let sample = |ready| Sample { elapsed: TICK, ready, load: Some(0.0), arrived: Some(0.0), ..Sample::default() };
    for n in 1..1000 {
        assert_eq!(step(&policy, &mut memory, 1, sample(0), TICK * n).to, 1);
    }
    for n in 1000..1299 {
        assert_eq!(step(&policy, &mut memory, 1, sample(1), TICK * n).to, 1, "{n}");
    }
    assert_eq!(step(&policy, &mut memory, 1, sample(1), TICK * 1301).to, 0);
}

#[test]
fn what_may_have_come_unseen_keeps_the_last_replica_and_no_other() {
    let policy = to_zero(5);
    let mut memory = Memory::new(Duration::ZERO);
    let sample = |unheard| Sample {
        elapsed: TICK,
        ready: 2,
        load: Some(0.0),
        capacity: Some(SLOTS),
        arrived: Some(0.0),
        unheard,
        ..Sample::default()
    };
    let mut ordered = 2;
    for n in 1..1000 {
        ordered = step(&policy, &mut memory, ordered, sample(true), TICK * n).to;
    }
    assert_eq!(ordered, 1);
    for n in 1000..1400 {
        ordered = step(&policy, &mut memory, ordered, sample(false), TICK * n).to;
    }
    assert_eq!(ordered, 0);
}

proptest! {
    #[test]
    fn once_the_rate_is_known_a_step_never_orders_more_than_needed_by_half(
        rate in 0.2f64..4.0, start_seconds in 2.0f64..120.0, factor in 1.5f64..12.0,
    ) {
        let policy = policy(50);
        let mut world = World::new(rate, start_seconds);
        world.run(&policy, rate * 1.3, 400.0);
        let until = world.seconds + 600.0;
        while world.seconds < until {
            let before = world.ordered;
            let decided = world.tick(&policy, rate * factor, false);
            // As the decision knew it.
            let Some(known) = world.memory.completion_rate() else { continue };
            if decided.to > before {
                let need = rate * factor / known;
                let most = (decided.inputs.ready + 1).max(round_up(1.5 * need));
                prop_assert!(decided.to <= most, "{} > {most} (need {need})", decided.to);
            }
        }
    }

    #[test]
    fn any_history_stays_within_limits_and_shrinks_only_when_certain(
        loads in prop::collection::vec((prop::option::of(0.0f64..200.0), 0i32..6, any::<bool>(), 0.0f64..5.0), 1..200),
    ) {
        let policy = Policy { down: Some(Duration::from_secs(20)), ..policy(5) };
        let mut memory = Memory::new(Duration::ZERO);
        let mut ordered = 2;
        for (i, (load, ready, silent, refused)) in loads.into_iter().enumerate() {
            let sample = Sample {
                elapsed: TICK, ready, load, silent, refused: Some(refused), capacity: Some(SLOTS), ..Sample::default()
            };
            let decided = step(&policy, &mut memory, ordered, sample, TICK * (i as u32 + 1));
            prop_assert!((policy.min..=policy.max).contains(&decided.to));
            if silent || load.is_none() {
                prop_assert!(decided.to >= ordered);
            }
            ordered = decided.to;
        }
    }
}

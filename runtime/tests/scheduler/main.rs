//! The scheduler in random worlds: no block leaks or is used twice at once, no request is lost, served twice or
//! overtaken, each gets the answer that it gets alone, whoever leaves or fails and whenever.
//!
//! Without arguments the slice of the test suite. `--all --seed N` is the campaign of 10 000 runs; `--run N` with a seed
//! repeats one of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod random;
mod world;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use random::{Random, Scenario};
use serde_json::json;
use vlm_runtime::engine::scheduler::{Counts, SequenceId};
use world::{End, World};

const SLICE: (u64, u64) = (400, 2);
const CAMPAIGN: (u64, u64) = (10_000, 40);
/// Many times the steps of the longest run that comes to an end.
const MOST_STEPS: usize = 200_000;

/// What happened in all runs.
#[derive(Default)]
struct Sums {
    runs: u64,
    steps: u64,
    complete: u64,
    cancelled: u64,
    failed: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Sums {
    fn add(&mut self, world: &World) {
        self.runs += 1;
        self.steps += world.steps as u64;
        let ended = |how| world.ended.values().filter(|end| **end == how).count() as u64;
        self.complete += ended(End::Complete);
        self.cancelled += ended(End::Cancelled);
        self.failed += ended(End::Failed);
        let Counts { found_tokens, preemptions, encoder_hits, encoder_misses, tiles, .. } = world.scheduler.counts();
        for (name, count) in [
            ("found_tokens", found_tokens),
            ("preemptions", preemptions),
            ("encoder_hits", encoder_hits),
            ("encoder_misses", encoder_misses),
            ("tiles", tiles),
        ] {
            *self.counts.entry(name).or_default() += count;
        }
    }
}

/// A random scenario in which some leave and some fail at random.
fn random_run(seed: u64, run: u64) -> World {
    let mut random = Random::new(seed, run);
    let scenario = Scenario::random(&mut random, 12);
    let (leaving, failing) = (random.within(20, 400) as u64, random.within(20, 2000) as u64);
    let mut world = World::new(&scenario);
    while !world.over() {
        world.arrivals();
        if random.once_in(leaving) {
            let alive = world.alive();
            world.cancel(alive[random.within(0, alive.len() - 1)]);
        }
        if !world.alive().is_empty() {
            let mut other = Random::new(random.next(), 0);
            world.step(|_| random.once_in(failing), |_| other.once_in(leaving));
        }
        assert!(world.steps < MOST_STEPS, "the scheduler does not come to an end");
    }
    world.check_end();
    world
}

/// When a client leaves.
#[derive(Clone, Copy, Debug)]
enum Point {
    BeforeStep(usize),
    AtToken(usize),
    WorkFails(usize),
}

/// One scenario in which one client leaves at one point; whether that point was reached.
fn with_one_gone(scenario: &Scenario, id: SequenceId, point: Point) -> (World, bool) {
    let mut world = World::new(scenario);
    let (mut tokens, mut works, mut reached) = (0, 0, false);
    while !world.over() {
        world.arrivals();
        if matches!(point, Point::BeforeStep(step) if step == world.steps) && world.alive().contains(&id) {
            world.cancel(id);
            reached = true;
        }
        if !world.alive().is_empty() {
            let mut count = |who: SequenceId, counter: &mut usize, at: Option<usize>| {
                *counter += usize::from(who == id);
                let now = who == id && at == Some(*counter);
                reached |= now;
                now
            };
            let (at_token, at_work) = match point {
                Point::AtToken(n) => (Some(n), None),
                Point::WorkFails(n) => (None, Some(n)),
                Point::BeforeStep(_) => (None, None),
            };
            let count = std::cell::RefCell::new(&mut count);
            world.step(
                |who| count.borrow_mut()(who, &mut works, at_work),
                |who| count.borrow_mut()(who, &mut tokens, at_token),
            );
        }
        assert!(world.steps < MOST_STEPS, "the scheduler does not come to an end");
    }
    world.check_end();
    (world, reached)
}

/// A scenario in which every client leaves once at every point.
fn every_point(seed: u64, run: u64, sums: &mut Sums) {
    let scenario = Scenario::random(&mut Random::new(seed, 1_000_000 + run), 5);
    let kinds: [fn(usize) -> Point; 3] = [Point::BeforeStep, Point::AtToken, Point::WorkFails];
    for id in 0..scenario.arrivals.len() as SequenceId {
        for kind in kinds {
            // Requests may arrive late: the first points of a kind need not be reached, later ones then are.
            let (mut missed, mut n) = (0, 0);
            while missed < 25 {
                let (world, reached) = with_one_gone(&scenario, id, kind(n));
                sums.add(&world);
                missed = if reached { 0 } else { missed + 1 };
                n += 1;
            }
        }
    }
}

/// All runs, with the numbers of those that failed.
fn all(seed: u64, (random, everywhere): (u64, u64), progress: bool) -> (Sums, Vec<String>) {
    let (mut sums, mut wrong, begun) = (Sums::default(), Vec::new(), Instant::now());
    for run in 0..random {
        match catch_unwind(|| random_run(seed, run)) {
            Ok(world) => sums.add(&world),
            Err(_) => wrong.push(format!("run {run}")),
        }
        if progress && (run + 1).is_multiple_of(1000) {
            println!("{} of {random} runs, {} wrong, {:.0} s", run + 1, wrong.len(), begun.elapsed().as_secs_f64());
        }
    }
    for run in 0..everywhere {
        let mut here = Sums::default();
        if catch_unwind(std::panic::AssertUnwindSafe(|| every_point(seed, run, &mut here))).is_err() {
            wrong.push(format!("scenario {run} with one gone"));
        }
        sums.runs += here.runs;
        sums.steps += here.steps;
        sums.complete += here.complete;
        sums.cancelled += here.cancelled;
        sums.failed += here.failed;
        here.counts.into_iter().for_each(|(name, count)| *sums.counts.entry(name).or_default() += count);
    }
    (sums, wrong)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn commit() -> String {
    let out = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        Some(words.get(at + 1)?.parse::<u64>().unwrap_or_else(|_| panic!("{name} takes a number")))
    };
    let seed = number("--seed").unwrap_or(1);
    if let Some(run) = number("--run") {
        let world = random_run(seed, run);
        return println!("run {run}: {} steps, {:?}", world.steps, world.ended);
    }
    let campaign = words.iter().any(|word| word == "--all");
    // Other tests were asked for.
    if !campaign && words.iter().any(|word| !word.starts_with('-') && !"scheduler".contains(word.as_str())) {
        return;
    }
    let (sums, wrong) = all(seed, if campaign { CAMPAIGN } else { SLICE }, campaign);
    let record = json!({
        "campaign": "scheduler", "seed": seed, "commit": commit(), "random_runs": CAMPAIGN.0, "runs": sums.runs,
        "steps": sums.steps, "complete": sums.complete, "cancelled": sums.cancelled, "failed_on_purpose": sums.failed,
        "counts": sums.counts, "wrong": wrong,
    });
    if campaign {
        let path = root().join(format!("tests/results/scheduler-{seed}.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
        println!("written to {}", path.display());
    }
    let Sums { runs, steps, complete, cancelled, failed, counts } = &sums;
    println!("{runs} runs of {steps} steps: {complete} complete, {cancelled} cancelled, {failed} failed, {counts:?}");
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
    // A world in which nothing happens proves nothing.
    assert!(*cancelled > 0 && *failed > 0 && counts.values().all(|count| *count > 0), "{counts:?}");
    println!("\ntest result: ok");
}

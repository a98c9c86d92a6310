//! The autoscaler beside models of others, on traces of arrivals and a clock of its own.
//!
//! `cargo bench --workspace --bench scaling` writes the table and the picture that `results/` keeps.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

mod picture;
mod scalers;
mod world;

use scalers::{Keda, Knative, KubeAi, Ours, Scaler};
use world::{Arrivals, Outcome, SERVICE_SECONDS, SLOTS, STEP_SECONDS, TARGET_SECONDS, Trace, World};

const NAMES: [&str; 4] = ["ours", "KubeAI", "Knative", "KEDA + HPA"];
const SEEDS: RangeInclusive<u64> = 1..=20;
/// Seconds from the order of a replica until it serves.
const LOAD_SECONDS: f64 = 45.0;
/// Arrivals and times to load that no constant was chosen by.
const OTHER_SEEDS: RangeInclusive<u64> = 101..=120;
const OTHER_LOADS: [f64; 4] = [15.0, LOAD_SECONDS, 120.0, 240.0];
/// Why ours is behind where it is; checked against the table by whoever changes either.
const REASONS: &str = "\
Why:
- A step, also one with an outage, a restart or shorter answers: Knative orders as many as are allowed (20); ours orders by
  what waits, and once the rate is known at most 1.5 times what the arrivals need. What piled up is worked off later, and
  costs less.
- A spike: replicas stay for a down window after it, which is what one takes to start and no less than 60 s.
- A ramp: it begins at once, and ours knows how arrivals grow after three calm windows; most of the time is before that.
- A day: KubeAI orders what the places of replicas just hold on average, and pays in time.
";
const NEVER: (f64, f64) = (f64::INFINITY, f64::INFINITY);

fn traces() -> Vec<Trace> {
    let service = |_| SERVICE_SECONDS;
    let plain = |name, seconds, rate| Trace { name, seconds, rate, service, blind: NEVER, restart: None };
    let shorter = |t: f64| if t < 1200.0 { SERVICE_SECONDS } else { SERVICE_SECONDS / 4.0 };
    let step = |t: f64| if (300.0..1500.0).contains(&t) { 6.0 } else { 0.4 };
    let sawtooth = |t: f64| 0.4 + 5.6 * (t % 600.0) / 600.0;
    let ramp = |t: f64| 0.4 + 7.6 * (1.0 - (t - 1200.0).abs() / 1200.0).max(0.0);
    let diurnal = |t: f64| 4.2 - 3.8 * (t / 7200.0 * std::f64::consts::TAU).cos();
    vec![
        plain("step", 2400.0, step),
        plain("ramp", 2400.0, ramp),
        plain("spike", 1200.0, |t| if (300.0..360.0).contains(&t) { 8.0 } else { 0.4 }),
        plain("sawtooth", 3000.0, sawtooth),
        plain("day in two hours", 7200.0, diurnal),
        Trace { service: shorter, ..plain("shorter answers", 2400.0, |t| if t < 300.0 { 0.4 } else { 6.0 }) },
        Trace { name: "metrics out for 5 min", blind: (500.0, 800.0), ..plain("", 2400.0, step) },
        Trace { name: "restart under load", restart: Some(600.0), ..plain("", 2400.0, step) },
    ]
}

fn scaler(which: usize) -> Box<dyn Scaler> {
    match which {
        0 => Box::new(Ours::new()),
        1 => Box::new(KubeAi::default()),
        2 => Box::new(Knative::default()),
        _ => Box::new(Keda::default()),
    }
}

fn run(trace: &Trace, which: usize, seed: u64, load_seconds: f64) -> Outcome {
    let (mut world, mut arrivals, mut scaler) = (World::new(load_seconds), Arrivals::new(seed), scaler(which));
    let (mut now, mut next, mut restart) = (0.0, 0.0, trace.restart);
    while now < trace.seconds {
        world.step(arrivals.within((trace.rate)(now)), trace, now);
        if restart.is_some_and(|at| now >= at) {
            let state = world.seen(now);
            scaler.restart(state.ordered, state.ready, now);
            restart = None;
        }
        if now >= next {
            let state = world.seen(now);
            let readable = !(trace.blind.0..trace.blind.1).contains(&now);
            let wanted = scaler.decide(readable.then_some(state), &world.replicas(now), state.ordered, now);
            world.order(wanted, now);
            next += scaler.interval();
        }
        now += STEP_SECONDS;
    }
    world.outcome
}

/// Means over the seeds: seconds short of capacity, replica hours, late requests and refused ones in percent.
struct Row {
    short: f64,
    cost: f64,
    late: f64,
    refused: f64,
}

fn mean(outcomes: &[Outcome]) -> Row {
    let of = |f: fn(&Outcome) -> f64| outcomes.iter().map(f).sum::<f64>() / outcomes.len() as f64;
    Row {
        short: of(|o| o.short_seconds),
        cost: of(|o| o.replica_seconds / 3600.0),
        late: of(|o| 100.0 * o.late as f64 / o.requests as f64),
        refused: of(|o| 100.0 * o.refused as f64 / o.requests as f64),
    }
}

/// In what ours is behind another.
fn worse(ours: &Row, row: &Row) -> Option<String> {
    let more = |of: fn(&Row) -> f64, digits: usize, what: &str| {
        let (less, theirs) = (format!("{:.digits$}", of(ours)), format!("{:.digits$}", of(row)));
        (of(ours) > of(row) && less != theirs).then(|| format!("{less} {what} against {theirs}"))
    };
    let worse = [more(|r| r.short, 0, "s short"), more(|r| r.cost, 2, "replica hours"), more(|r| r.late, 1, "% late")];
    let worse: Vec<_> = worse.into_iter().flatten().collect();
    (!worse.is_empty()).then(|| worse.join(", "))
}

/// What comes of `trace` by each autoscaler.
fn all(trace: &Trace, seeds: RangeInclusive<u64>, load_seconds: f64) -> Vec<Vec<Outcome>> {
    (0..NAMES.len()).map(|which| seeds.clone().map(|seed| run(trace, which, seed, load_seconds)).collect()).collect()
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    let mut text = format!(
        "Replicas compute {SLOTS} requests at a time, each for {SERVICE_SECONDS} s (with shorter \
         answers, from the middle on, for a quarter of that), and load for {LOAD_SECONDS} s; a request that waits longer than \
         {TARGET_SECONDS} s or is refused is late. Means of {} sequences of arrivals. Short: seconds in which what \
         serves completes less than arrives. The others are models of their sources, with their defaults (scalers.rs).\n\n\
         | trace | autoscaler | short s | replica hours | late % | refused % |\n|---|---|---|---|---|---|\n",
        SEEDS.count()
    );
    let (mut behind, mut pictures) = (String::new(), Vec::new());
    for trace in traces() {
        let all = all(&trace, SEEDS, LOAD_SECONDS);
        let rows: Vec<_> = all.iter().map(|outcomes| mean(outcomes)).collect();
        for (name, row) in NAMES.iter().zip(&rows) {
            let Row { short, cost, late, refused } = row;
            let _ = writeln!(text, "| {} | {name} | {short:.0} | {cost:.2} | {late:.1} | {refused:.1} |", trace.name);
        }
        for (name, row) in NAMES.iter().zip(&rows).skip(1) {
            if let Some(worse) = worse(&rows[0], row) {
                let _ = writeln!(behind, "- {}, {name}: {worse}", trace.name);
            }
        }
        pictures.push((trace, all.into_iter().map(|mut outcomes| outcomes.swap_remove(0).history).collect()));
    }
    let _ = writeln!(text, "\nWhere ours is behind:\n{behind}\n{REASONS}");
    others(&mut text);
    std::fs::write(folder.join("scaling.md"), &text).unwrap();
    std::fs::write(folder.join("scaling.svg"), picture::draw(&NAMES, &pictures)).unwrap();
    println!("{text}");
}

/// The table of other arrivals and times to load.
fn others(text: &mut String) {
    let (first, last) = OTHER_SEEDS.into_inner();
    let _ = write!(
        text,
        "With arrivals that nothing was chosen by ({first} to {last}) and replicas that load for another time; in each \
         place seconds short / replica hours / late %.\n\n| trace | loads for | {} | ours is behind in |\n|---|---|{}---|\n",
        NAMES.join(" | "),
        "---|".repeat(NAMES.len())
    );
    for (trace, load_seconds) in traces().iter().flat_map(|trace| OTHER_LOADS.map(|load| (trace, load))) {
        let rows: Vec<_> = all(trace, OTHER_SEEDS, load_seconds).iter().map(|outcomes| mean(outcomes)).collect();
        let shown = rows.iter().map(|Row { short, cost, late, .. }| format!("{short:.0} / {cost:.2} / {late:.1}"));
        let shown: Vec<_> = shown.collect();
        let behind = NAMES.iter().zip(&rows).skip(1);
        let behind = behind.filter_map(|(name, row)| Some(format!("{name}: {}", worse(&rows[0], row)?)));
        let behind: Vec<_> = behind.collect();
        let _ = writeln!(
            text,
            "| {} | {load_seconds} s | {} | {} |",
            trace.name,
            shown.join(" | "),
            if behind.is_empty() { "–".to_owned() } else { behind.join("; ") }
        );
    }
}

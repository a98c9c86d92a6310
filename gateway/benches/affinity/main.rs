//! Where questions about the same pictures go: the gateway's balance beside round robin, a hash of the text, and the
//! least busy pod. Two gateways, pods that come and go.
//!
//! `cargo bench --workspace --bench affinity` prints the simulation's table, which `results/affinity.md` keeps: the
//! real balance, a model of the pods, and a clock of its own. `-- real RUNTIME MODEL` asks real model servers, through
//! real gateways and past them, and prints what they take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod measured;
mod pod;
mod real;
#[path = "../shared/served.rs"]
mod served;
mod trace;
mod world;

use trace::Trace;
use world::{Outcome, Policy};

const SEEDS: u64 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => simulate(),
        ["real", runtime, model] => real::run(runtime, model),
        other => panic!("unknown arguments: {other:?}"),
    }
}

fn simulate() {
    println!(
        "| trace | way | encoder cache hits | TTFT p50 ms | p90 ms | p90 of round robin ÷ this | most ÷ mean requests | most ÷ mean in flight |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for trace in Trace::all() {
        let of = |policy| Figures::of(&(0..SEEDS).map(|seed| world::run(&trace, policy, seed)).collect::<Vec<_>>());
        let round_robin = of(Policy::RoundRobin);
        for policy in Policy::ALL {
            let figures = of(policy);
            println!(
                "| {} | {} | {:.0} % | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} |",
                trace.name,
                policy.name(),
                figures.hits * 100.0,
                figures.p50,
                figures.p90,
                round_robin.p90 / figures.p90,
                figures.requests,
                figures.in_flight,
            );
        }
    }
}

/// Medians over the seeds.
struct Figures {
    hits: f64,
    p50: f64,
    p90: f64,
    requests: f64,
    in_flight: f64,
}

impl Figures {
    fn of(outcomes: &[Outcome]) -> Self {
        let median = |of: &dyn Fn(&Outcome) -> f64| quantile(outcomes.iter().map(of).collect(), 0.5);
        Self {
            hits: median(&|o| o.hits as f64 / o.first_token_milliseconds.len() as f64),
            p50: median(&|o| quantile(o.first_token_milliseconds.clone(), 0.5)),
            p90: median(&|o| quantile(o.first_token_milliseconds.clone(), 0.9)),
            requests: median(&|o| o.most_over_mean_requests),
            in_flight: median(&|o| o.most_over_mean_in_flight),
        }
    }
}

pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

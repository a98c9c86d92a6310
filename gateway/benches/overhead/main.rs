//! What the gateway costs over asking a replica directly, with nginx beside it, which buffers requests as well.
//!
//! `NGINX=/usr/sbin/nginx cargo bench --workspace --bench overhead` prints what `results/overhead.md` keeps. The
//! same program is the load, the replica and the gateway, each in a process of its own; `memory` as an argument runs
//! the second part alone, `time` the first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;

mod load;
mod replica;
mod report;
#[path = "../shared/served.rs"]
mod served;
mod sides;
mod streams;

use load::{Plan, Sample};
use report::Row;
use sides::Side;

/// Each is asked in turn, so that whatever else the machine does meets all alike.
const ROUNDS: usize = 5;
const SMALL: Plan = Plan { per_second: 1000, seconds: 5, body_bytes: 10_000, lanes: 64 };
const LARGE: Plan = Plan { per_second: 100, seconds: 8, body_bytes: 1_000_000, lanes: 16 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["replica"] => replica::run(),
        ["gateway", replica] => sides::run_gateway(replica.parse().expect("an address")),
        [] => {
            time();
            memory();
        }
        ["time"] => time(),
        ["memory"] => memory(),
        other => panic!("unknown arguments: {other:?}"),
    }
}

fn time() {
    let replica = Side::replica();
    let sides = [None, Some(Side::nginx(replica.address)), Some(Side::gateway(replica.address))];
    report::head();
    for (name, plan) in [("10 kB, 1000/s", SMALL), ("1 MB, 100/s", LARGE)] {
        let mut rows = ["direct", "nginx", "gateway"].map(|side| Row::new(name, side));
        for _ in 0..ROUNDS {
            for (side, row) in sides.iter().zip(&mut rows) {
                let address = side.as_ref().map_or(replica.address, |side| side.address);
                let before = side.as_ref().map(Side::processor_seconds);
                let sample = measure(address, &plan);
                let spent = side.as_ref().zip(before).map(|(side, before)| side.processor_seconds() - before);
                row.add(&sample, spent);
            }
        }
        let [direct, ..] = &rows;
        for row in &rows {
            row.print(direct);
        }
    }
}

fn measure(address: SocketAddr, plan: &Plan) -> Sample {
    let sample = load::run(address, plan);
    assert_eq!(sample.failed, 0, "requests failed");
    sample
}

fn memory() {
    let replica = Side::replica();
    println!(
        "\n| {} streams open, {} s | before MiB | after 5 s | least after that | most | events/s |",
        streams::COUNT,
        streams::SECONDS
    );
    println!("|---|---|---|---|---|---|");
    for (name, side) in [("nginx", Side::nginx(replica.address)), ("gateway", Side::gateway(replica.address))] {
        let held = streams::hold(&side);
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} |",
            held.before, held.begun, held.least, held.most, held.events_per_second
        );
    }
}

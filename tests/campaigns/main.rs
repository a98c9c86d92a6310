//! Long runs with a seed: `make campaign NAME=idle SEED=1`. Each has a short slice among the
//! tests, writes progress, and leaves its result in tests/results/.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use clap::{Parser, Subcommand};
use serde_json::json;
use vlm_tests::cluster::{SYSTEM, service_ip};
use vlm_tests::idle::{Window, many, writes};
use vlm_tests::space::Space;
use vlm_tests::tools::{root, run};

/// Which campaign.
#[derive(Parser)]
struct Args {
    /// Recorded with the result; campaigns without random choices only record it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Subcommand)]
enum Campaign {
    /// Ten minutes in which nothing happens: only leases may be written.
    Idle {
        /// Length in seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Five minutes of 200 models that serve and are asked nothing: only leases may be written.
    Many {
        /// Length in seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
    },
    /// From a pod's failure to the reason on its model, at least 100 times for each reason; and from the creation of a
    /// model that is valid and impossible to its condition, as often as a model fails for a reason.
    Latency {
        /// Models that fail at the same time.
        #[arg(long, default_value_t = 8)]
        lanes: usize,
        /// Failures of each reason on each model.
        #[arg(long, default_value_t = 13)]
        rounds: usize,
    },
    /// Streams kept open while their model scales down, rolls, and loses its pods one at a time, by TERM and by KILL.
    Streams {
        /// How many.
        #[arg(long, default_value_t = 200)]
        open: usize,
        /// Replicas of the model.
        #[arg(long, default_value_t = 5)]
        replicas: i64,
    },
    /// Many requests at once for a model that sleeps, of which some clients leave.
    Burst {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        requests: usize,
        /// How many of them may be held.
        #[arg(long, default_value_t = 256)]
        max_held: usize,
        /// Clients that leave.
        #[arg(long, default_value_t = 100)]
        leaving: usize,
    },
    /// Random valid edits in sequence, the state after each held against that of a fresh object.
    Edits {
        /// How many.
        #[arg(long, default_value_t = 300)]
        count: usize,
    },
    /// At the peak Prometheus or a gateway goes, or all that is told of the load is a minute old.
    Outage,
    /// From the first request for a model without replicas to the written scale-up and the first token.
    Wake {
        /// Models that are woken in turn.
        #[arg(long, default_value_t = 6)]
        models: usize,
        /// How often one is woken.
        #[arg(long, default_value_t = 110)]
        samples: usize,
    },
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let (name, result) = match args.campaign {
        Campaign::Idle { seconds } => ("idle", idle(seconds).await),
        Campaign::Many { seconds } => ("many", idle_many(seconds).await),
        Campaign::Latency { lanes, rounds } => ("latency", latency(lanes, rounds).await),
        Campaign::Streams { open, replicas } => ("streams", streams(open, replicas).await),
        Campaign::Burst { requests, max_held, leaving } => ("burst", burst((requests, max_held, leaving)).await),
        Campaign::Edits { count } => ("edits", edits(count, args.seed).await),
        Campaign::Outage => ("outage", outage().await),
        Campaign::Wake { models, samples } => ("wake", wake(models, samples).await),
    };
    let git = |arguments: &[&str]| run(std::process::Command::new("git").args(arguments).current_dir(root())).unwrap();
    let record = json!({"campaign": name, "seed": args.seed, "commit": git(&["rev-parse", "HEAD"]).trim(),
                        "clean": git(&["status", "--porcelain", "--untracked-files=no"]).is_empty(), "result": result});
    let folder = root().join("tests/results");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}-{}.json", args.seed));
    std::fs::write(&path, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
    println!("{record:#}\nwritten to {}", path.display());
    assert_eq!(result["passed"], true);
}

/// Writes seen while two models idle, by user and resource.
async fn idle(seconds: u64) -> serde_json::Value {
    let space = Space::with_model("campaign-idle").await;
    space.apply(&json!({"scaling": {"minReplicas": 2, "maxReplicas": 3}})).unwrap();
    space.await_ready().await;
    println!("two replicas are ready; {seconds} s of silence begin");
    let window = Window::after_settling(&space, seconds).await;
    let everyone = writes(&window, |_| true);
    let wrong = writes(&window, |e| {
        let by_operator = e["user"]["username"].as_str().unwrap_or_default().contains(":vlm-system:");
        by_operator || e["objectRef"]["namespace"] == space.name.as_str()
    });
    let mut by_kind = std::collections::BTreeMap::<String, usize>::new();
    for write in &everyone {
        *by_kind.entry(write.clone()).or_default() += 1;
    }
    json!({"idle_seconds": seconds, "replicas": 2, "writes_besides_leases": wrong.len(), "which": wrong,
           "writes_of_the_rest_of_the_cluster": by_kind, "passed": wrong.is_empty()})
}

/// Writes seen while 200 models with a pod each idle.
async fn idle_many(seconds: u64) -> serde_json::Value {
    let space = Space::with_model("campaign-many").await;
    let begun = std::time::Instant::now();
    many(&space, 200, 1).await;
    let ready = begun.elapsed().as_secs_f64();
    println!("200 models are ready after {ready:.1} s; {seconds} s of silence begin");
    let window = Window::after_settling(&space, seconds).await;
    let wrong = writes(&window, |e| {
        let by_operator = e["user"]["username"].as_str().unwrap_or_default().contains(":vlm-system:");
        by_operator || e["objectRef"]["namespace"] == space.name.as_str()
    });
    json!({"idle_seconds": seconds, "models": 200, "seconds_until_all_ready": ready,
           "writes_besides_leases": wrong.len(), "which": wrong, "passed": wrong.is_empty()})
}

async fn latency(lanes: usize, rounds: usize) -> serde_json::Value {
    let space = Space::with_model("campaign-latency").await;
    let samples = vlm_tests::latency::measure(&space, lanes, rounds).await;
    let failures = vlm_tests::latency::summary(&samples);
    println!("{failures:#}");
    let samples = vlm_tests::latency::of_creation("campaign", rounds).await;
    let creations = vlm_tests::latency::summary(&samples);
    let below = |of: &serde_json::Value, what: &str, limit: f64| {
        of.as_object().unwrap().values().all(|r| r[what].as_f64().unwrap() < limit)
    };
    let passed = below(&failures, "p99_ms", 1000.0) && below(&creations, "max_ms", 2000.0);
    json!({"failures": {"models_at_the_same_time": lanes, "from": "before the pod's status is sent",
                        "to": "a watch shows the reason", "p99_below_ms": 1000, "reasons": failures},
           "creations": {"models_at_the_same_time": vlm_tests::impossible::ALL.len(),
                         "from": "before the impossible model is created", "to": "a watch shows the reason",
                         "max_below_ms": 2000, "reasons": creations},
           "passed": passed})
}

async fn streams(open: usize, replicas: i64) -> serde_json::Value {
    let space = Space::with_model("campaign-streams").await;
    let base = format!("http://{}", service_ip("vlm-operator-gateway", SYSTEM));
    vlm_tests::streams::disturb(&space, &base, open, 400, replicas).await
}

async fn burst(numbers: (usize, usize, usize)) -> serde_json::Value {
    let space = Space::with_model("campaign-burst").await;
    vlm_tests::burst::run(&space, numbers).await
}

/// Each panics where a replica was taken away.
async fn outage() -> serde_json::Value {
    let cut = vlm_tests::outage::prometheus_cut("campaign-no-prometheus", 120, true).await;
    println!("{cut}");
    let late = vlm_tests::outage::late_metrics("campaign-late-metrics").await;
    println!("{late}");
    let gateway = vlm_tests::outage::gateway_cut("campaign-one-gateway").await;
    json!({"prometheus_cut": cut, "metrics_late": late, "gateway_cut": gateway, "passed": true})
}

async fn edits(count: usize, seed: u64) -> serde_json::Value {
    let space = Space::with_model("campaign-edits").await;
    let wrong = vlm_tests::fresh::run(&space, count, seed, |done| {
        if done % 25 == 0 {
            println!("{done} of {count} edits");
        }
    })
    .await;
    json!({"edits": count, "that_left_something_behind": wrong.len(), "which": wrong, "passed": wrong.is_empty()})
}

async fn wake(models: usize, samples: usize) -> serde_json::Value {
    let space = Space::with_model("campaign-wake").await;
    let told = |done: usize, parts: &vlm_tests::wake::Parts| println!("{done} of {samples}: {parts:.1?}");
    let all = vlm_tests::wake::measure(&space, models, samples, told).await;
    let parts = vlm_tests::wake::summary(&all);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let passed = samples >= 100 && parts["written"]["p99_ms"].as_f64().unwrap() < 100.0;
    json!({"samples": samples, "models": models, "cores_of_the_machine": cores,
           "from": "before the request is sent to the gateway's Service",
           "written": "the API server has answered the operator's write of the Deployment (its audit log)",
           "written_p99_below_ms": 100, "parts": parts, "passed": passed})
}

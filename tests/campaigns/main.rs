//! Long runs with a seed: `make campaign NAME=idle SEED=1`. Each has a short slice among the
//! tests, writes progress, and leaves its result in tests/results/.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use clap::{Parser, Subcommand};
use serde_json::json;
use vlm_tests::idle::{Window, writes};
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
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let (name, result) = match args.campaign {
        Campaign::Idle { seconds } => ("idle", idle(seconds).await),
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

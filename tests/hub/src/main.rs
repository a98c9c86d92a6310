//! `test-hub`: serves the repositories of a folder, for tests on a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use vlm_test_hub::{Repository, TestHub};

/// A hub of models for tests.
#[derive(Debug, Parser)]
#[command(name = "test-hub")]
struct Args {
    /// Folder of repositories: ORGANISATION/NAME/FILE; one with a file .token is private.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    host: IpAddr,
    /// Port of the hub.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of its storage.
    #[arg(long, default_value_t = 8081)]
    storage_port: u16,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let repositories = Repository::all_below(&args.root);
    let names: Vec<String> = repositories.iter().map(|r| format!("{} at {}", r.name, r.commit())).collect();
    let at = |port| SocketAddr::new(args.host, port);
    let hub = TestHub::start_at(repositories, at(args.port), at(args.storage_port)).await;
    println!("serving {} on {}", names.join(", "), hub.endpoint);
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("SIGTERM");
    tokio::select! {
        () = hub.wait() => {}
        _ = term.recv() => {}
    }
}

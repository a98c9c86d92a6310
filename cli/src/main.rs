//! `kubectl-vlm`, the plugin that `kubectl vlm` runs.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kubectl_vlm::args::{Cli, Command};
use kubectl_vlm::checkpoint::CheckpointError;
use kubectl_vlm::{cluster, logs, plan, status};

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("Error: {error:?}");
        // Those of the contract's table, which the server ends with for the same cause.
        error.downcast_ref::<CheckpointError>().map_or(ExitCode::FAILURE, |error| error.cause().exit_code().into())
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Plan(args) => block_on(async {
            let (text, fits) = plan::run(&args).await?;
            print(&text)?;
            Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }),
        Command::Status(args) => block_on(async {
            let cluster = cluster::connect(&args.cluster).await?;
            print(&status::run(&cluster, &args.name).await?)?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Logs(args) => block_on(async {
            let cluster = cluster::connect(&args.cluster).await?;
            logs::run(&cluster, &args, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed");
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no async runtime")?.block_on(work)
}

/// Writes to standard output; a reader that has gone is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(()),
    }
}

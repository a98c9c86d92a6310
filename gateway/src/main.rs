//! `vlm-gateway`: the process.

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use vlm_gateway::{args::Cli, run::run, telemetry};

fn main() -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed");
    }
    let args = Cli::parse();
    telemetry::init(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no async runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let stop = shutdown.clone();
        let signals = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("shutting down");
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = run(args, shutdown) => result.context("the gateway ended"),
            () = signals => Ok(()),
        }
    })
}

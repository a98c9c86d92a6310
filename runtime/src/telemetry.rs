//! The log: one subscriber on standard output, filtered by `RUST_LOG` (default `info`). Standard
//! error is left to the one sentence of a failed start.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Installs the subscriber; a second call changes nothing.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "a subscriber is already installed");
    }
}

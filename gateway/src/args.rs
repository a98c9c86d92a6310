//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use vlm_contract::ports;

/// One address for every `VisionModel` of a cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "vlm-gateway", version)]
pub struct Cli {
    /// Port of the API.
    #[arg(long, env = "VLM_PORT", default_value_t = ports::GATEWAY_HTTP)]
    pub port: u16,
    /// Port of /healthz, /readyz, /metrics and /routable.
    #[arg(long, env = "VLM_ADMIN_PORT", default_value_t = ports::GATEWAY_ADMIN)]
    pub admin_port: u16,
    /// Serve the models of these namespaces only, with commas between them. Default: every namespace.
    #[arg(long, env = "VLM_WATCH_NAMESPACES", value_name = "NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Name of the gateway's own Service, by which it knows how many gateways share what a model may hold. Default: it
    /// is alone.
    #[arg(long, env = "VLM_GATEWAY_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
    /// Namespace of the gateway's own Service. Default: that of the pod.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Largest request body in bytes.
    #[arg(long, value_name = "N", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(1024..=1_073_741_824))]
    pub max_body_bytes: u32,
    /// Bytes of all request bodies together; further requests get 503.
    #[arg(long, value_name = "N", default_value_t = 512 << 20, value_parser = clap::value_parser!(u64).range(1024..=1_099_511_627_776))]
    pub max_bodies_bytes: u64,
    /// Seconds that the headers of a request may take to arrive, and that a connection may ask nothing.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub silence_seconds: u64,
    /// Seconds that a body may take to arrive.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub body_seconds: u64,
    /// Connections at the same time; further ones wait to be accepted.
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Seconds between two signs of life to a streaming client whose request waits.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub heartbeat_seconds: u64,
    /// Seconds that open answers get to finish after SIGTERM.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub drain_timeout_seconds: u64,
    /// File with the Ed25519 private key (PEM, PKCS #8) whose public half the model servers know. With it, a stream whose
    /// model server ends goes on at another one.
    #[arg(long, env = "VLM_CONTINUATION_KEY_FILE", value_name = "FILE")]
    pub continuation_key_file: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, env = "VLM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["x", "--watch-namespaces", "a,b", "--service", "s"]).unwrap();
        assert_eq!((cli.port, cli.admin_port, cli.watch_namespaces.len()), (8000, 8080, 2));
        assert!(Cli::try_parse_from(["x", "--max-body-bytes", "1"]).is_err());
    }
}

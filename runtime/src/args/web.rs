//! Flags of `serve` about the world around it: who may ask, from where pictures come, how long a connection may be
//! silent.

use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::Args;

use crate::image::fetch::Network;
use crate::server::continuation::{GatewayKey, gateway_key};
use crate::server::cors::origin;

/// Who may ask, and from where pictures come.
#[derive(Clone, Debug, Args)]
pub struct WebArgs {
    /// Fetch pictures from http and https URLs, from hosts with public addresses.
    #[arg(long)]
    pub allow_image_urls: bool,
    /// Network, such as 10.1.0.0/16, from which pictures are fetched although it is not public; repeatable.
    #[arg(long, value_name = "NETWORK", requires = "allow_image_urls")]
    pub image_url_network: Vec<Network>,
    /// Seconds for fetching one picture.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub image_url_timeout_seconds: u64,
    /// Directory under which pictures may be named by file:// URLs.
    #[arg(long, value_name = "DIR")]
    pub image_root: Option<PathBuf>,
    /// File with the API keys, one a line. Default: those of the variable `VLM_API_KEY`; without any, everyone may ask.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Origin, such as `https://chat.example.com`, whose pages may use this server from a browser; `*` for all;
    /// repeatable.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub cors_origin: Vec<HeaderValue>,
    /// Ed25519 public key in base64; who holds its private key may move streams here from other servers.
    #[arg(long, value_name = "KEY", value_parser = gateway_key)]
    pub continuation_public_key: Option<GatewayKey>,
    /// Connections that may be open. Default: twice the requests that may run and wait, and no fewer than 512.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: Option<u32>,
    /// Seconds of silence after which a connection is closed, and in which the headers of a request must arrive.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub idle_timeout_seconds: u64,
    /// Seconds in which the body of a request must arrive.
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub body_timeout_seconds: u64,
    /// Seconds without an event after which a stream sends a comment, so that no proxy takes it for dead.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub keep_alive_seconds: u64,
    /// Leave out the metrics under the names that vLLM gives them.
    #[arg(long)]
    pub no_vllm_metrics: bool,
}

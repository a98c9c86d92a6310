//! Flags of the commands that look for weights elsewhere: `fetch` and `inspect`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use vlm_contract::uri::ModelUri;
use vlm_contract::{flags, ports};

use super::LogFormat;

/// How a hub is reached.
#[derive(Clone, Debug, Args)]
pub struct HubArgs {
    /// Branch, tag or commit.
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
    /// Base address of the hub or of a mirror.
    #[arg(long, value_name = "URL", env = flags::HUB_ENDPOINT_VARIABLE, default_value = vlm_hub::hf::PUBLIC)]
    pub endpoint: String,
    /// File with the hub's token, for private and gated repositories. Default: the variable `HF_TOKEN`, if it is
    /// set.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Flags of `fetch`.
#[derive(Clone, Debug, Args)]
pub struct FetchArgs {
    /// Where the checkpoint is: `hf://ORGANISATION/NAME`.
    #[arg(long, value_name = "URI")]
    pub uri: ModelUri,
    /// Directory that is to hold it; it appears when everything is there. Work in the making lies beside it.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// How the hub is reached.
    #[command(flatten)]
    pub hub: HubArgs,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port of /metrics while the files come; 0 takes a free one.
    #[arg(long, default_value_t = ports::RUNTIME_HTTP)]
    pub port: u16,
    /// File that receives the diagnosis when the checkpoint cannot be fetched.
    #[arg(long, value_name = "PATH")]
    pub termination_log: Option<PathBuf>,
    /// Form of the log on standard output.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,
}

/// Flags of `inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Where the checkpoint is: `hf://ORGANISATION/NAME`.
    #[arg(long, value_name = "URI", required_unless_present = "model")]
    pub uri: Option<ModelUri>,
    /// Directory of the checkpoint.
    #[arg(long, value_name = "DIR", conflicts_with = "uri")]
    pub model: Option<PathBuf>,
    /// How the hub is reached.
    #[command(flatten)]
    pub hub: HubArgs,
    /// File that receives the answer, or the diagnosis when there is none.
    #[arg(long, value_name = "PATH")]
    pub termination_log: Option<PathBuf>,
}

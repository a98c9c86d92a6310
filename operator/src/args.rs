//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use vlm_contract::ports;

/// Serves vision-language models on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "vlm-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look after the `VisionModels` of a cluster.
    Run(Run),
}

/// Settings of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Image of the model server.
    #[arg(long, env = "VLM_RUNTIME_IMAGE", value_name = "IMAGE")]
    pub runtime_image: String,
    /// Image of the model server for GPUs.
    #[arg(long, env = "VLM_RUNTIME_CUDA_IMAGE", value_name = "IMAGE")]
    pub runtime_cuda_image: String,
    /// When the images of the model server are pulled.
    #[arg(long, env = "VLM_IMAGE_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub image_pull_policy: PullPolicy,
    /// Base URL of the Prometheus server that spec.scaling.prometheus queries.
    #[arg(long, env = "VLM_PROMETHEUS_URL", value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// Base address of the hub or of a mirror, for the operator and for the pods that fetch. Default: the public
    /// Hugging Face hub.
    #[arg(long, env = "VLM_HUB_ENDPOINT", value_name = "URL")]
    pub hub_endpoint: Option<String>,
    /// Name of the config map that holds the GPU types, in the namespace of the leader's lease.
    #[arg(long, env = "VLM_GPU_TYPES", value_name = "NAME", default_value = "vlm-operator-gpu-types")]
    pub gpu_types: String,
    /// Look at nodes, so that a model whose GPU type no node has is told so. Needs the right to list and watch them.
    #[arg(long, env = "VLM_WATCH_NODES")]
    pub watch_nodes: bool,
    /// Name of the gateway's Service, in the namespace of the leader's lease. With it, models may go without replicas,
    /// and what the gateways hold counts as load.
    #[arg(long, env = "VLM_GATEWAY_SERVICE", value_name = "NAME")]
    pub gateway_service: Option<String>,
    /// Ed25519 public key of the gateway in base64. Model servers go on with an answer of another one when it signs.
    #[arg(long, env = "VLM_GATEWAY_PUBLIC_KEY", value_name = "KEY", value_parser = public_key)]
    pub gateway_public_key: Option<String>,
    /// Look after these namespaces only, with commas between them. Default: every namespace.
    #[arg(long, env = "VLM_WATCH_NAMESPACES", value_name = "NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Port of /healthz, /readyz, /metrics and /prometheus/targets.
    #[arg(long, env = "VLM_ADMIN_PORT", default_value_t = ports::OPERATOR_ADMIN)]
    pub admin_port: u16,
    /// Namespace of the leader's lease. Default: that of the pod.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_lease_namespace: Option<String>,
    /// Name of this process among the operator's replicas. Default: the host's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// How log lines look.
    #[arg(long, env = "VLM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// 32 bytes in base64: a wrong key would stop every model server at its start.
fn public_key(text: &str) -> Result<String, String> {
    let digits = text.strip_suffix('=').unwrap_or_default();
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if digits.len() == 43 && digits.bytes().all(base64) {
        Ok(text.to_owned())
    } else {
        Err("the key is not the 32 bytes of an Ed25519 public key in base64".to_owned())
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
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

    fn parsed(more: &[&str]) -> Run {
        let line = ["x", "run", "--runtime-image", "i", "--runtime-cuda-image", "c"];
        let Command::Run(run) = Cli::try_parse_from(line.iter().chain(more)).unwrap().command;
        run
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_policy_is_spelled_as_kubernetes_does() {
        let run = parsed(&["--image-pull-policy", "Always"]);
        assert_eq!(run.image_pull_policy.name(), "Always");
        assert_eq!(run.admin_port, 8080);
        assert!(run.watch_namespaces.is_empty() && !run.watch_nodes);
    }

    #[test]
    fn a_public_key_is_thirty_two_bytes() {
        let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(parsed(&["--gateway-public-key", key]).gateway_public_key.as_deref(), Some(key));
        for wrong in
            ["", "x", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo", "11qYAYKxCrfVS 7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
        {
            assert!(public_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn namespaces_are_told_apart_by_commas() {
        let run = parsed(&["--watch-namespaces", "a,b"]);
        assert_eq!(run.watch_namespaces, ["a", "b"]);
    }
}

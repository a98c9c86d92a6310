//! The command line. Owns the flags' names, defaults and ranges; does nothing with them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Plans, explains and reads `VisionModels`.
#[derive(Debug, Parser)]
#[command(name = "kubectl-vlm", bin_name = "kubectl vlm", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whether the models of a file fit, on which GPUs, and what they cost. Needs no cluster; fails when one does not fit.
    Plan(PlanArgs),
    /// What a model is doing, and what it waits for, in words.
    Status(StatusArgs),
    /// What all pods of a model say.
    Logs(LogsArgs),
}

/// Flags of `plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// File with `VisionModels`; - reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub filename: PathBuf,
    /// Directory with the checkpoint that model.uri names, of all models of the file. Default: configuration and
    /// headers of an hf:// repository are read from the hub, at the address in `HF_ENDPOINT` and with the token in
    /// `HF_TOKEN` where those are set.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// GPU catalogue in the place of the one that comes with the chart.
    #[arg(long, value_name = "FILE")]
    pub gpu_types: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: Output,
    /// The load that cost is reckoned for.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The load that cost is reckoned for, and what it costs elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Args)]
pub struct LoadArgs {
    /// Pictures that are asked about in a day, one a request.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub images_per_day: Option<u64>,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub tokens: u64,
    /// Tokens of a question beside its picture.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub question_tokens: u64,
    /// Tokens of answers that one replica gives in a second under load, as measured. Default: an estimate by the GPU's
    /// data sheet.
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub tokens_per_second: Option<f64>,
    /// What the cloud API asks for a million tokens of prompts, in US dollars. Default: GPT-4o's list price.
    #[arg(long, value_name = "USD", default_value_t = 2.5, value_parser = not_negative)]
    pub api_usd_per_million_prompt_tokens: f64,
    /// What it asks for a million tokens of answers.
    #[arg(long, value_name = "USD", default_value_t = 10.0, value_parser = not_negative)]
    pub api_usd_per_million_answer_tokens: f64,
    /// Tokens that it counts for a picture. Default: GPT-4o's for 1024 x 1024 pixels in high detail.
    #[arg(long, value_name = "N", default_value_t = 765, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub api_image_tokens: u64,
    /// What a machine with one such GPU costs to buy, in US dollars: says after how many days it has paid for itself.
    #[arg(long, value_name = "USD", value_parser = positive)]
    pub hardware_usd: Option<f64>,
}

/// Which cluster, and where in it.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Namespace of the model. Default: that of the context.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. Default: KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Flags of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Name of the model.
    pub name: String,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Flags of `logs`.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Name of the model.
    pub name: String,
    /// Go on as more is said.
    #[arg(short, long)]
    pub follow: bool,
    /// What the containers said before they were last restarted.
    #[arg(short, long)]
    pub previous: bool,
    /// Lines from the end of each pod. Default: all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub tail: Option<i64>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|e| e.to_string())?;
    if number.is_finite() && number.abs() <= 1e12 {
        Ok(number)
    } else {
        Err("a number up to 1e12 is needed".to_owned())
    }
}

fn positive(text: &str) -> Result<f64, String> {
    number(text).and_then(|number| if number > 0.0 { Ok(number) } else { Err("it must be more than 0".to_owned()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text).and_then(|number| if number >= 0.0 { Ok(number) } else { Err("it must not be below 0".to_owned()) })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let parse = |rate: &str| {
            Cli::try_parse_from(["x", "plan", "-f", "a", "--checkpoint", "b", "--tokens-per-second", rate])
        };
        assert!(parse("400.5").is_ok());
        for rate in ["0", "-1", "nan", "inf", "1e13", "fast"] {
            assert!(parse(rate).is_err(), "{rate}");
        }
    }
}

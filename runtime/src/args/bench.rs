//! Flags of `bench`: what is measured, with which requests.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ModelArgs;

/// Flags of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Directory of the checkpoint. The bandwidth alone is measured without one.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Draw the weights at random where they are computed with: the checkpoint's directory needs config.json alone.
    #[arg(long)]
    pub dummy_weights: bool,
    /// What is measured.
    #[arg(long, value_name = "MODE", default_value = "latency")]
    pub mode: BenchMode,
    /// Sequences computed at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Tokens of text in each prompt; those of pictures come on top.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Pictures in each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub images: u32,
    /// Size of a picture in pixels, which says how many tiles it is cut into.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "672x672", value_parser = size)]
    pub image_size: (u32, u32),
    /// Show all requests the same pictures, so that they are found again; every picture is another unless said.
    #[arg(long)]
    pub same_images: bool,
    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    pub output_tokens: u32,
    /// Requests in all. Default: five batches, or eight where they are not sent as batches.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: Option<u32>,
    /// Requests a second, at random moments (Poisson), for serving. Default: the next when one is answered.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub request_rate: Option<f64>,
    /// Of prompts and moments: same seed, same ones.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Most bytes of the KV cache. Default: room for the whole batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_bytes: Option<u64>,
    /// File that receives the results as JSON, beside the table on standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub how: ModelArgs,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// How fast memory is read, without a model.
    Bandwidth,
    /// One batch after another, each sent at once: the first token, then the tokens of the whole batch.
    Latency,
    /// All requests at once, as many computed together as the batch has.
    Throughput,
    /// As many clients as the batch has, each waiting for its answer; or random moments.
    Serving,
}

impl BenchMode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Serving => "serving",
        }
    }
}

impl BenchArgs {
    /// Requests in all.
    pub fn requests(&self) -> usize {
        let batches = if self.mode == BenchMode::Latency { 5 } else { 8 };
        self.requests.unwrap_or(batches * self.batch) as usize
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |side: &str| side.parse().ok().filter(|side| (1..=8192).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "a size is WIDTHxHEIGHT, each from 1 to 8192 pixels, such as 672x672".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (1e-3..=1e6).contains(rate));
    rate.ok_or_else(|| "a rate is a number of requests a second from 0.001 to 1000000".to_owned())
}

//! Flags of the commands that prove a conversion: `trace` and `verify`.

use std::path::PathBuf;

use clap::Args;

use super::ModelArgs;

/// Flags of `trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Directory of the checkpoint.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The prompt, in the form of the model's chat template; `<image>` stands where a picture goes. Taken to the
    /// last byte, a line's end included.
    #[arg(long, value_name = "FILE")]
    pub prompt_file: PathBuf,
    /// Pictures in the order of their places; repeatable.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub image: Vec<PathBuf>,
    /// Tokens to generate, the most likely one each; ids that end an answer do not end it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Directory that receives trace.json and trace.safetensors; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub how: ModelArgs,
}

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Directory of expected.json, expected.safetensors and images/0.png, 1.png, …
    #[arg(value_name = "DIR")]
    pub expected: PathBuf,
    /// Directory of the checkpoint. Default: the same.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub how: ModelArgs,
}

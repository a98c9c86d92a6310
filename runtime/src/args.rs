//! The command line. Owns the flags' names, defaults and ranges; does nothing with them.

mod bench;
mod hub;
mod model;
mod proof;
mod web;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use vlm_contract::{flags, ports};

pub use bench::{BenchArgs, BenchMode};
pub use hub::{FetchArgs, HubArgs, InspectArgs};
pub use model::ModelArgs;
pub use proof::{TraceArgs, VerifyArgs};
pub use web::WebArgs;

use crate::engine::ENCODER_CACHE_BYTES;

/// `vlm-runtime`.
#[derive(Debug, Parser)]
#[command(name = "vlm-runtime", version, about = "Serves vision-language models")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a checkpoint over the `OpenAI` API.
    Serve(ServeArgs),
    /// Download a checkpoint of the hub into a directory.
    Fetch(FetchArgs),
    /// Tell what a checkpoint is and weighs, as one line of JSON, without reading its weights.
    Inspect(InspectArgs),
    /// Run one prompt as it is and write what every part of the model gave.
    Trace(TraceArgs),
    /// Compare what a model gives with what a reference gave.
    Verify(VerifyArgs),
    /// Measure how fast this machine runs a model.
    Bench(BenchArgs),
}

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directory of the checkpoint.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Name under which the model is served; repeatable. Default: the directory's name.
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = served_name)]
    pub served_model_name: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port of the API, /health, /ready and /metrics; 0 takes a free one.
    #[arg(long, default_value_t = ports::RUNTIME_HTTP)]
    pub port: u16,
    /// Longest sequence, prompt and answer together, in tokens. Default: what the model allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Sequences computed at the same time.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_concurrency: u32,
    /// Most bytes of the KV cache. Default: room for max-concurrency sequences of max-tokens tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_bytes: Option<u64>,
    /// Most bytes that are kept of pictures, for the next request with the same picture.
    #[arg(long, value_name = "N", default_value_t = ENCODER_CACHE_BYTES)]
    pub encoder_cache_bytes: u64,
    /// Requests that may wait; one more gets 429. Default: max(64, 8 × max-concurrency).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub max_queue: Option<u32>,
    /// Seconds after SIGTERM until which running requests may finish.
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub drain_timeout_seconds: u32,
    /// Seconds after SIGTERM during which new requests are still served, because routes to this
    /// server take a while to disappear.
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub drain_accept_seconds: u32,
    /// Largest picture in pixels.
    #[arg(long, value_name = "N", default_value_t = 40_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub max_image_pixels: u64,
    /// Largest picture file in bytes.
    #[arg(long, value_name = "N", default_value_t = 20_971_520,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub max_image_bytes: u64,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub how: ModelArgs,
    /// Pictures in one request.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub max_images_per_request: u32,
    /// Largest request body in bytes.
    #[arg(long, value_name = "N", default_value_t = 64 * 1024 * 1024,
          value_parser = clap::value_parser!(u32).range(1024..=1_073_741_824))]
    pub max_body_bytes: u32,
    /// Who may ask, and from where pictures come.
    #[command(flatten)]
    pub web: Box<WebArgs>,
    /// File that receives the diagnosis when the server cannot start.
    #[arg(long, value_name = "PATH")]
    pub termination_log: Option<PathBuf>,
    /// Form of the log on standard output.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl ServeArgs {
    /// Names under which the model is served; never empty.
    pub fn names(&self) -> Vec<String> {
        if !self.served_model_name.is_empty() {
            return self.served_model_name.clone();
        }
        let directory = self.model.canonicalize().unwrap_or_else(|_| self.model.clone());
        let name = directory.file_name().map_or("model".into(), |name| name.to_string_lossy());
        vec![name.into_owned()]
    }

    /// Connections that may be open.
    pub fn connections(&self) -> usize {
        let requests = self.max_concurrency as usize + self.queue();
        self.web.max_connections.map_or_else(|| (2 * requests + 64).max(512), |n| n as usize)
    }

    /// Requests that may wait.
    pub fn queue(&self) -> usize {
        self.max_queue.map_or_else(|| (8 * self.max_concurrency as usize).max(64), |n| n as usize)
    }
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum NoCommand {
    /// Help or version, to be printed; a success.
    Text(String),
    /// One sentence about a wrong flag, without full stop.
    Wrong(String),
}

/// Reads the command line, program name first.
pub fn parse(line: &[OsString]) -> Result<Cli, NoCommand> {
    Cli::try_parse_from(line).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NoCommand::Text(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            NoCommand::Wrong("the subcommand is missing, such as `serve`".into())
        }
        _ => NoCommand::Wrong(sentence(&error.to_string())),
    })
}

/// The termination log that a command line names, also when the rest of it is wrong.
pub fn termination_log(line: &[OsString]) -> Option<PathBuf> {
    let with_value = format!("{}=", flags::TERMINATION_LOG);
    let mut words = line.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if word == flags::TERMINATION_LOG {
            return words.next().map(|path| PathBuf::from(path.into_owned()));
        }
        if let Some(path) = word.strip_prefix(&with_value) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

/// The first paragraph of clap's message on one line.
fn sentence(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

fn served_name(name: &str) -> Result<String, String> {
    let readable = name.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if (1..=256).contains(&name.len()) && readable {
        Ok(name.to_owned())
    } else {
        Err("a name has 1 to 256 bytes and no spaces".into())
    }
}

#[cfg(test)]
mod tests {
    use vlm_catalog::kv_cache::KvCacheDtype;
    use vlm_catalog::quantization::Quantization;

    use super::*;
    use crate::image::ImageAspect;
    use crate::precision::Dtype;

    fn line(words: &[&str]) -> Vec<OsString> {
        ["vlm-runtime"].iter().chain(words).map(OsString::from).collect()
    }

    fn serve(words: &[OsString]) -> ServeArgs {
        match parse(words).unwrap().command {
            Command::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn wrong(words: &[&str]) -> String {
        match parse(&line(words)).unwrap_err() {
            NoCommand::Wrong(sentence) => sentence,
            NoCommand::Text(text) => panic!("{text}"),
        }
    }

    #[test]
    fn the_flags_that_the_operator_passes_exist() {
        let words = line(&[
            "serve",
            flags::MODEL,
            "/models/x",
            flags::SERVED_MODEL_NAME,
            "a",
            flags::SERVED_MODEL_NAME,
            "b",
            flags::MAX_TOKENS,
            "512",
            flags::MAX_CONCURRENCY,
            "16",
            flags::KV_BYTES,
            "1073741824",
            flags::QUANTIZATION,
            "int4",
            flags::KV_CACHE_DTYPE,
            "int8",
            flags::ENCODER_CACHE_BYTES,
            "1048576",
            flags::DRAIN_TIMEOUT_SECONDS,
            "30",
            flags::TERMINATION_LOG,
            "/dev/termination-log",
        ]);
        let args = serve(&words);
        assert_eq!(args.names(), ["a", "b"]);
        assert_eq!((args.max_tokens, args.kv_bytes), (Some(512), Some(1 << 30)));
        assert_eq!((args.queue(), args.how.precision.quantization), (128, Quantization::Int4));
        assert_eq!(args.how.precision.kv_cache_dtype, KvCacheDtype::Int8);
        assert_eq!(args.encoder_cache_bytes, 1 << 20);
        assert_eq!(args.port, ports::RUNTIME_HTTP);
        assert_eq!(termination_log(&words), args.termination_log);
    }

    #[test]
    fn pictures_are_padded_or_cropped_on_request() {
        let aspect = |words: &[&str]| serve(&line(&[&["serve", "--model", "x"], words].concat())).how.image_aspect;
        assert_eq!(aspect(&[]), None);
        assert_eq!(aspect(&["--image-aspect", "pad"]), Some(ImageAspect::Pad));
        assert_eq!(aspect(&["--image-aspect", "crop"]), Some(ImageAspect::Crop));
        assert!(wrong(&["serve", "--model", "x", "--image-aspect", "stretch"]).contains("pad, crop"));
    }

    #[test]
    fn every_command_that_loads_a_model_takes_the_same_flags() {
        let flags = [
            "--vision-tower",
            "/t",
            "--chat-template",
            "llava_v1",
            "--dtype",
            "bf16",
            "--quantization",
            "int4",
            "--kv-cache-dtype",
            "fp8",
            "--device",
            "cpu",
        ];
        let commands: [&[&str]; 4] = [
            &["serve", "--model", "x"],
            &["trace", "--model", "x", "--prompt-file", "p", "--max-tokens", "1", "--out", "o"],
            &["verify", "x"],
            &["bench", "--model", "x"],
        ];
        for words in commands {
            let how = match parse(&line(&[words, &flags].concat())).unwrap().command {
                Command::Serve(args) => args.how,
                Command::Trace(args) => args.how,
                Command::Verify(args) => args.how,
                Command::Bench(args) => args.how,
                other => panic!("{other:?}"),
            };
            assert_eq!(how.vision_tower.as_deref(), Some(std::path::Path::new("/t")));
            assert_eq!(how.chat_template.as_deref(), Some("llava_v1"));
            assert_eq!(how.device, crate::device::DeviceChoice::Cpu);
            assert_eq!((how.precision.dtype, how.precision.quantization), (Dtype::Bf16, Quantization::Int4));
            assert_eq!(how.precision.kv_cache_dtype, KvCacheDtype::Fp8);
        }
        assert!(wrong(&["serve", "--model", "x", "--kv-cache-dtype", "int4"]).contains("auto, int8, fp8"));
        assert!(wrong(&["serve", "--model", "x", "--quantization", "int3"]).contains("none, int8, int4"));
    }

    #[test]
    fn the_directory_names_the_model_by_default() {
        let args = serve(&line(&["serve", "--model", "/a/tiny-llava/"]));
        assert_eq!(args.names(), ["tiny-llava"]);
        assert_eq!(args.queue(), 64);
    }

    #[test]
    fn a_wrong_flag_gives_one_sentence() {
        assert!(wrong(&["serve"]).contains("--model <DIR>"));
        assert!(wrong(&["serve", "--model", "x", "--port", "99999"]).contains("--port"));
        assert!(wrong(&["serve", "--model", "x", "--frobnicate"]).contains("--frobnicate"));
        assert!(wrong(&[]).contains("serve"));
        let zero = wrong(&["serve", "--model", "x", "--max-concurrency", "0"]);
        assert!(zero.contains("--max-concurrency") && !zero.contains('\n'), "{zero}");
        assert!(wrong(&["serve", "--model", "x", "--served-model-name", ""]).contains("1 to 256"));
    }

    #[test]
    fn the_termination_log_is_found_in_a_wrong_line() {
        let words = line(&["serve", "--nonsense", "--termination-log=/x/y"]);
        assert_eq!(termination_log(&words), Some(PathBuf::from("/x/y")));
        assert_eq!(termination_log(&line(&["serve"])), None);
    }
}

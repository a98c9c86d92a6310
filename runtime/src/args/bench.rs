//! Flags of `bench`: what is measured, with which requests; and which of them contradict each other.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ModelArgs;

/// Flags of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Directory of the checkpoint; with --dummy-weights also a file like config.json. The bandwidth alone is measured
    /// without one.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Draw the weights at random where they are computed with: the checkpoint's directory needs config.json alone.
    #[arg(long)]
    pub dummy_weights: bool,
    /// What is measured.
    #[arg(long, value_name = "MODE", default_value = "latency")]
    pub mode: BenchMode,
    /// Sequences computed at the same time; several, such as 1,8,32, are measured one after another.
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Vec<u32>,
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
    #[arg(long, alias = "same-image")]
    pub same_images: bool,
    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    pub output_tokens: u32,
    /// Requests in all, for each batch; several, such as 2,32, are those of each --batch. Default: five batches, or eight
    /// where they are not sent as batches.
    #[arg(long, value_name = "N", value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: Vec<u32>,
    /// How long a soak lasts, beside a sixth of that for what it is compared with.
    #[arg(long, value_name = "N", default_value_t = 360, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Requests a second, at random moments (Poisson), for serving. Default: the next when one is answered.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub request_rate: Option<f64>,
    /// Of prompts and moments: same seed, same ones.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Most bytes of the KV cache. Default: room for the largest batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_bytes: Option<u64>,
    /// Behind all measurements, show a profiler that waits for it (ncu --profile-from-start off) how a prompt is read and a few
    /// steps of the largest --batch.
    #[arg(long)]
    pub profile: bool,
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
    /// As many sequences as the batch has, all the time, prompts and pictures included.
    Throughput,
    /// As many clients as the batch has, each waiting for its answer; or random moments.
    Serving,
    /// All kinds of requests at random moments, near the most that can be answered, for --seconds: leaks, and what large
    /// pictures cost others.
    Soak,
}

impl BenchMode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Serving => "serving",
            Self::Soak => "soak",
        }
    }
}

impl BenchArgs {
    /// Each batch, and the requests of its measurement.
    pub fn batches(&self) -> impl Iterator<Item = (usize, usize)> {
        let batches = if self.mode == BenchMode::Latency { 5 } else { 8 };
        self.batch.iter().enumerate().map(move |(nth, batch)| {
            let requests = self.requests.get(nth).or(self.requests.last());
            (*batch as usize, requests.map_or(batches * *batch as usize, |requests| *requests as usize))
        })
    }

    /// The largest batch.
    pub fn largest_batch(&self) -> usize {
        self.batch.iter().max().map_or(1, |batch| *batch as usize)
    }

    /// What is wrong with flags that are right each for itself.
    ///
    /// # Errors
    /// A sentence without full stop that names the flags and what to do.
    pub fn check(&self) -> Result<(), String> {
        let mode = self.mode.name();
        if self.mode == BenchMode::Bandwidth {
            return Ok(());
        }
        if self.model.is_none() {
            return Err(format!("--model is missing, and --mode {mode} measures a model; name one or bandwidth"));
        }
        if self.request_rate.is_some() && self.mode != BenchMode::Serving {
            return Err(format!("--request-rate is for --mode serving, not for {mode}; leave one of them out"));
        }
        if self.request_rate.is_some() && self.batch.len() != 1 {
            return Err(format!(
                "--request-rate takes one --batch, not {}; measure one after another",
                self.batch.len()
            ));
        }
        if self.profile && self.mode != BenchMode::Latency {
            return Err(format!("--profile is for --mode latency, not for {mode}; leave one of them out"));
        }
        if self.profile && self.output_tokens < 8 {
            return Err(format!(
                "--profile watches several steps, which --output-tokens {} does not have; make it 8 or more",
                self.output_tokens
            ));
        }
        if self.same_images && self.images == 0 {
            return Err("--same-images shows pictures, but --images is 0; leave one of them out".to_owned());
        }
        if self.dummy_weights && self.how.vision_tower.is_some() {
            return Err(
                "--vision-tower names weights, but --dummy-weights reads none; leave one of them out".to_owned()
            );
        }
        if self.requests.len() > 1 && self.requests.len() != self.batch.len() {
            return Err(format!(
                "--requests has {} numbers and --batch {}; give one for all, or one for each",
                self.requests.len(),
                self.batch.len()
            ));
        }
        if self.mode == BenchMode::Soak && (self.batch.len() != 1 || !self.requests.is_empty()) {
            return Err("--mode soak takes one --batch, and --seconds for --requests; correct them".to_owned());
        }
        if self.mode == BenchMode::Latency
            && let Some((batch, requests)) = self.batches().find(|(batch, requests)| !requests.is_multiple_of(*batch))
        {
            return Err(format!(
                "--requests {requests} is no multiple of --batch {batch}, and --mode latency sends whole batches; \
                 make it one"
            ));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Command, NoCommand, parse};

    fn line(words: &[&str]) -> Vec<OsString> {
        ["vlm-runtime", "bench"].iter().chain(words).map(OsString::from).collect()
    }

    fn bench(words: &[&str]) -> BenchArgs {
        match parse(&line(words)).unwrap().command {
            Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn wrong(words: &[&str]) -> String {
        match parse(&line(words)) {
            Err(NoCommand::Wrong(sentence)) => sentence,
            Err(NoCommand::Text(text)) => panic!("{text}"),
            Ok(_) => bench(words).check().unwrap_err(),
        }
    }

    #[test]
    fn a_measurement_has_as_many_requests_as_its_mode_needs() {
        let model = ["--model", "x"];
        let batches = |words: &[&str]| bench(&[&model[..], words].concat()).batches().collect::<Vec<_>>();
        assert_eq!(batches(&["--batch", "4"]), [(4, 20)]);
        assert_eq!(batches(&["--mode", "serving", "--batch", "4"]), [(4, 32)]);
        assert_eq!(batches(&["--batch", "1,32", "--requests", "2,64"]), [(1, 2), (32, 64)]);
        let several = bench(&["--model", "x", "--batch", "1,8,2", "--requests", "16", "--image-size", "896x448"]);
        assert_eq!((&several.batch[..], several.largest_batch()), (&[1, 8, 2][..], 8));
        assert_eq!((several.image_size, several.check()), ((896, 448), Ok(())));
        assert_eq!(several.batches().collect::<Vec<_>>(), [(1, 16), (8, 16), (2, 16)]);
    }

    #[test]
    fn each_wrong_flag_is_named_with_its_limit() {
        let cases: [(&[&str], &[&str]); 10] = [
            (&["--batch", "0"], &["--batch", "1..=4096"]),
            (&["--batch", "1,5000"], &["--batch", "5000", "1..=4096"]),
            (&["--batch", "1,,2"], &["--batch"]),
            (&["--images", "65"], &["--images", "0..=64"]),
            (&["--image-size", "896"], &["--image-size", "WIDTHxHEIGHT", "8192"]),
            (&["--image-size", "0x9"], &["--image-size", "from 1 to 8192"]),
            (&["--output-tokens", "1"], &["--output-tokens", "2.."]),
            (&["--request-rate", "nan"], &["--request-rate", "0.001"]),
            (&["--requests", "0"], &["--requests", "1..=1000000"]),
            (&["--mode", "speed"], &["--mode", "bandwidth, latency, throughput, serving, soak"]),
        ];
        for (words, says) in cases {
            let sentence = wrong(words);
            assert!(says.iter().all(|word| sentence.contains(word)), "{words:?}: {sentence}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_named() {
        let cases: [(&[&str], &[&str]); 10] = [
            (&[], &["--model", "latency"]),
            (&["--model", "x", "--request-rate", "2"], &["--request-rate", "--mode serving", "latency"]),
            (
                &["--model", "x", "--mode", "serving", "--request-rate", "2", "--batch", "1,2"],
                &["--request-rate", "--batch"],
            ),
            (&["--model", "x", "--same-images", "--images", "0"], &["--same-images", "--images"]),
            (&["--model", "x", "--dummy-weights", "--vision-tower", "y"], &["--vision-tower", "--dummy-weights"]),
            (&["--model", "x", "--requests", "12", "--batch", "4,8"], &["--requests 12", "--batch 8"]),
            (&["--model", "x", "--requests", "4,8", "--batch", "4"], &["--requests has 2", "--batch 1"]),
            (&["--model", "x", "--mode", "soak", "--batch", "1,2"], &["--mode soak", "--batch", "--seconds"]),
            (&["--model", "x", "--mode", "serving", "--profile"], &["--profile", "--mode latency", "serving"]),
            (&["--model", "x", "--output-tokens", "7", "--profile"], &["--profile", "--output-tokens 7", "8 or more"]),
        ];
        for (words, says) in cases {
            let sentence = wrong(words);
            assert!(says.iter().all(|word| sentence.contains(word)), "{words:?}: {sentence}");
        }
        assert_eq!(bench(&["--mode", "bandwidth"]).check(), Ok(()));
    }
}

//! What was measured: as JSON for programs, as a table for people; and how near it is to what memory allows.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use vlm_catalog::architecture::ModelConfig;
use vlm_catalog::checkpoint::{CheckpointSize, Head, Part};

use super::load::{Timing, Timings};
use crate::precision::Precision;

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    device: String,
    /// What the memory was read at, in bytes a second.
    read_bytes_per_second: f64,
    #[serde(flatten)]
    model: Option<Measured>,
}

/// What was measured of a model.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    dummy_weights: bool,
    dtype: &'static str,
    quantization: &'static str,
    /// From the first tensor to a warm engine.
    load_seconds: f64,
    memory: Memory,
    work: Work,
    requests: usize,
    seconds: f64,
    output_tokens_per_second: f64,
    prompt_tokens_per_second: f64,
    images_per_second: f64,
    first_token_ms: Quantiles,
    inter_token_ms: Quantiles,
    /// While whole batches decoded, where they were sent so.
    decode: Option<Decode>,
}

/// Bytes on the device.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the JSON, which say their unit")]
pub struct Memory {
    /// Of the weights, as they are held.
    pub weights_bytes: u64,
    /// The same, as the check before loading reckons.
    pub predicted_weights_bytes: u64,
    /// Of keys and values.
    pub kv_bytes: u64,
    /// Most that was taken at a time, where the device tells.
    pub peak_bytes: Option<u64>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub struct Work {
    /// Sequences at the same time.
    pub batch: usize,
    /// Tokens of a prompt, those of pictures included.
    pub prompt_tokens: usize,
    /// Those of pictures.
    pub image_tokens: usize,
    /// Pictures of a prompt.
    pub images: usize,
    /// Their tiles.
    pub tiles: usize,
    /// Tokens of an answer.
    pub output_tokens: usize,
    /// Requests a second, where they came at random moments.
    pub request_rate: Option<f64>,
}

/// The speed of whole batches.
#[derive(Debug, Serialize)]
struct Decode {
    /// Middle of the batches.
    tokens_per_second: f64,
    /// What reading weights, keys and values once a step allows.
    limit_tokens_per_second: f64,
    percent_of_limit: f64,
}

#[derive(Debug, Default, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

/// What was measured.
pub struct Model<'a> {
    /// What it is.
    pub config: &'a ModelConfig,
    /// Where it is.
    pub dir: &'a Path,
    /// How it is held.
    pub precision: Precision,
    /// Whether its weights were drawn.
    pub dummy_weights: bool,
}

impl Model<'_> {
    /// Bytes that a step reads to decode `batch` sequences of `context` tokens: the decoder, its head, all keys and
    /// values.
    fn step_bytes(&self, batch: usize, context: usize) -> u64 {
        let (size, number) = (CheckpointSize::of(self.config, Head::Stored), self.precision.dtype.size_in_bytes());
        let held = |part| size.held_bytes(part, self.precision.quantization, number as u64);
        let kv = self.config.text.kv_bytes_per_token(number) * (batch * context) as u64;
        held(Part::DecoderLinear) + held(Part::Head) + kv
    }
}

impl Report {
    /// Of a device whose memory was read at so many bytes a second.
    pub fn new(mode: &'static str, device: String, read_bytes_per_second: f64) -> Self {
        Self { mode, device, read_bytes_per_second, model: None }
    }

    /// Takes in what was measured of a model.
    pub fn add(&mut self, model: &Model<'_>, load_seconds: f64, memory: Memory, work: Work, timings: &Timings) {
        let all: Vec<&Timing> = timings.batches.iter().flatten().collect();
        let each = |count: usize| (all.len() * count) as f64 / timings.seconds;
        let first = all.iter().filter_map(|timing| Some(*timing.tokens.first()? - timing.sent));
        let between = all.iter().flat_map(|timing| timing.tokens.windows(2).map(|pair| pair[1] - pair[0]));
        let middle = work.prompt_tokens + work.output_tokens / 2;
        let limit = work.batch as f64 * self.read_bytes_per_second / model.step_bytes(work.batch, middle) as f64;
        let full = timings.batches.iter().filter(|batch| batch.len() == work.batch);
        let rates: Vec<f64> =
            if self.mode == "latency" { full.filter_map(|b| together(b)).collect() } else { Vec::new() };
        let decode = middle_of(rates).map(|rate| Decode {
            tokens_per_second: rate,
            limit_tokens_per_second: limit,
            percent_of_limit: 100.0 * rate / limit,
        });
        self.model = Some(Measured {
            model: model.dir.display().to_string(),
            dummy_weights: model.dummy_weights,
            dtype: model.precision.dtype.as_str(),
            quantization: model.precision.quantization.name(),
            load_seconds,
            memory,
            requests: all.len(),
            seconds: timings.seconds,
            output_tokens_per_second: all.iter().map(|timing| timing.tokens.len()).sum::<usize>() as f64
                / timings.seconds,
            prompt_tokens_per_second: each(work.prompt_tokens),
            images_per_second: each(work.images),
            first_token_ms: Quantiles::of(first),
            inter_token_ms: Quantiles::of(between),
            decode,
            work,
        });
    }
}

/// Tokens a second while all sequences of a batch decode: from the last first token to the first last token. `None`
/// where there is no such time.
fn together(batch: &[Timing]) -> Option<f64> {
    let begin = batch.iter().filter_map(|timing| timing.tokens.first()).max()?;
    let end = batch.iter().filter_map(|timing| timing.tokens.last()).min()?;
    let seconds = end.checked_duration_since(*begin)?.as_secs_f64();
    let within = |timing: &Timing| timing.tokens.iter().filter(|token| *token > begin && *token <= end).count();
    let tokens: usize = batch.iter().map(within).sum();
    (seconds > 0.0).then(|| tokens as f64 / seconds)
}

fn middle_of(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Quantiles {
    /// In milliseconds; the nearest rank each.
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let rank = |share: f64| ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
        let [p50, p95, p99] =
            [0.50, 0.95, 0.99].map(|share| times.get(rank(share)).copied().unwrap_or_default().as_secs_f64() * 1e3);
        Self { p50, p95, p99 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, value: String| writeln!(f, "| {what:<26} | {value} |");
        row(self.mode, self.device.clone())?;
        row("---", "---".to_owned())?;
        row("memory read", format!("{:.1} GB/s", self.read_bytes_per_second / 1e9))?;
        let Some(model) = &self.model else { return Ok(()) };
        let drawn = if model.dummy_weights { ", random weights" } else { "" };
        row("model", format!("{} ({}, {}{drawn})", model.model, model.dtype, model.quantization))?;
        let Memory { weights_bytes, predicted_weights_bytes, kv_bytes, peak_bytes } = model.memory;
        row(
            "weights, and as predicted",
            format!("{:.2} GB, {:.2} GB", giga(weights_bytes), giga(predicted_weights_bytes)),
        )?;
        row("KV cache", format!("{:.2} GB", giga(kv_bytes)))?;
        if let Some(peak) = peak_bytes {
            row("most memory taken", format!("{:.2} GB", giga(peak)))?;
        }
        row("load", format!("{:.2} s", model.load_seconds))?;
        let Work { batch, prompt_tokens, image_tokens, images, tiles, output_tokens, request_rate } = &model.work;
        let rate = request_rate.map(|rate| format!(", {rate} a second")).unwrap_or_default();
        row("requests", format!("{} of batch {batch}{rate}, in {:.2} s", model.requests, model.seconds))?;
        row(
            "each",
            format!("{prompt_tokens} tokens ({image_tokens} of {images} pictures, {tiles} tiles) + {output_tokens}"),
        )?;
        row("first token p50, p95, p99", model.first_token_ms.to_string())?;
        row("next tokens p50, p95, p99", model.inter_token_ms.to_string())?;
        row("tokens generated", format!("{:.1} a second", model.output_tokens_per_second))?;
        row("tokens read", format!("{:.1} a second", model.prompt_tokens_per_second))?;
        row("pictures", format!("{:.2} a second", model.images_per_second))?;
        let Some(Decode { tokens_per_second, limit_tokens_per_second, percent_of_limit }) = model.decode else {
            return Ok(());
        };
        let limit = format!("{percent_of_limit:.1} % of the {limit_tokens_per_second:.1} that memory allows");
        row("decoding as a whole batch", format!("{tokens_per_second:.1} tokens a second, {limit}"))
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}, {:.2}, {:.2} ms", self.p50, self.p95, self.p99)
    }
}

fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn timing(start: Instant, tokens: &[u64]) -> Timing {
        Timing { sent: start, tokens: tokens.iter().map(|ms| start + Duration::from_millis(*ms)).collect() }
    }

    #[test]
    fn only_the_time_in_which_all_decode_counts() {
        let start = Instant::now();
        // The second begins at 30 ms, the first ends at 70: tokens at 40 to 70 of both.
        let batch = [timing(start, &[10, 20, 30, 40, 50, 60, 70]), timing(start, &[30, 40, 50, 60, 70, 80, 90])];
        assert!((together(&batch).unwrap() - 8.0 / 0.04).abs() < 1e-6);
        assert_eq!(together(&[timing(start, &[1, 2]), timing(start, &[3, 4])]), None);
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let quantiles = Quantiles::of((1..=100).map(Duration::from_millis));
        assert_eq!([quantiles.p50, quantiles.p95, quantiles.p99].map(|ms| ms.round() as u32), [50, 95, 99]);
        assert_eq!(Quantiles::of(std::iter::empty()).p99.to_bits(), 0f64.to_bits());
    }
}

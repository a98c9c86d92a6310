//! What was measured, as tables for people. A file of JSON has more.

use std::fmt;

use super::figures::Quantiles;
use super::report::{Measured, Memory, Report, Run, Settings};
use super::soak::Soak;
use super::start::StartSeconds;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, value: String| writeln!(f, "| {what:<24} | {value} |");
        row(self.mode, self.device.clone())?;
        row("---", "---".to_owned())?;
        row("memory read", format!("{:.1} GB/s", self.read_bytes_per_second / 1e9))?;
        let Some(measured) = &self.model else { return Ok(()) };
        let Measured { model, memory, settings, runs, soak } = measured;
        let drawn = if model.dummy_weights { ", random weights" } else { "" };
        let kv = model.kv_cache_dtype.map(|dtype| format!(", keys and values {dtype}")).unwrap_or_default();
        row("model", format!("{} ({}, {}{kv}{drawn})", model.path, model.dtype, model.quantization))?;
        let Memory { weights_bytes, predicted_weights_bytes, kv_bytes, peak_bytes, .. } = *memory;
        row(
            "weights, and as predicted",
            format!("{:.3} GB, {:.3} GB", giga(weights_bytes), giga(predicted_weights_bytes)),
        )?;
        row("KV cache", format!("{:.3} GB", giga(kv_bytes)))?;
        if let Some(peak) = peak_bytes {
            row("most memory of tensors", format!("{:.3} GB", giga(peak)))?;
        }
        if let Some(without_kv) = memory.without_kv_bytes {
            let predicted = giga(memory.predicted_without_kv_bytes);
            row("all but KV, predicted", format!("{:.3} GB, {predicted:.3} GB", giga(without_kv)))?;
        }
        let StartSeconds { device, code, checkpoint, read, quantise, upload, warm_up } = model.start_seconds;
        row(
            "start",
            format!(
                "{:.2} s: device {device:.2}, code {code:.2}, files {checkpoint:.2}, weights read {read:.2}, quantised \
                 {quantise:.2}, uploaded {upload:.2}, warm-up {warm_up:.2}",
                model.load_seconds
            ),
        )?;
        let Settings { prompt_tokens, image_tokens, images, tiles, output_tokens, same_images, .. } = settings;
        let same = if *same_images { ", the same in all" } else { "" };
        row(
            "prompt",
            format!("{prompt_tokens} tokens, {image_tokens} of them of {images} pictures ({tiles} tiles{same})"),
        )?;
        row("answer", format!("{output_tokens} tokens"))?;
        if let Some(rate) = settings.request_rate {
            row("requests", format!("{rate} a second, at random moments, seed {}", settings.seed))?;
        }
        match soak {
            Some(soak) => long(f, soak),
            None => figures(f, runs),
        }
    }
}

/// What a soak showed, a row each.
fn long(f: &mut fmt::Formatter<'_>, soak: &Soak) -> fmt::Result {
    let mut row = |what: &str, value: String| writeln!(f, "| {what:<24} | {value} |");
    row("peak", format!("{:.3} requests/s", soak.peak_requests_per_second))?;
    row("sent", format!("{:.3} requests/s for {:.0} s", soak.request_rate, soak.seconds))?;
    let Soak { answered, cancelled, refused, generated_tokens, preemptions, .. } = soak;
    row("answered", format!("{answered}, cancelled {cancelled}, refused {refused}, preempted {preemptions}"))?;
    row("generated", format!("{generated_tokens} tokens, {:.1} tok/s", *generated_tokens as f64 / soak.seconds))?;
    row("first token ms", soak.first_token_ms.to_string())?;
    row("next token ms", soak.inter_token_ms.to_string())?;
    for (when, idle) in ["idle before", "idle after"].into_iter().zip(&soak.idle) {
        let taken = or_none(idle.taken_bytes.map(|bytes| format!("{:.3} GB", giga(bytes))));
        let pictures = giga(idle.picture_bytes);
        row(when, format!("{:.6} of the blocks, {taken}, {pictures:.3} GB of pictures", idle.kv_usage))?;
    }
    let beside = &soak.beside_pictures;
    row(
        "next token ms of others",
        format!(
            "{} without pictures; {} with {} of {} tiles, one a second: p99 {:.2} times",
            beside.without_ms, beside.with_ms, beside.pictures, beside.tiles, beside.p99_ratio
        ),
    )
}

/// One row a batch.
fn figures(f: &mut fmt::Formatter<'_>, runs: &[Run]) -> fmt::Result {
    let columns = [
        "batch",
        "requests",
        "refused",
        "seconds",
        "first token ms p50, p95, p99",
        "next token ms p50, p95, p99",
        "all first ms",
        "whole batch tok/s",
        "of what memory allows",
        "generated tok/s",
        "read tok/s",
        "requests/s",
        "pictures/s",
    ];
    writeln!(f, "\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for run in runs {
        let decode = |value: fn(&super::figures::Decode) -> f64| run.decode.as_ref().map(value);
        let limit = run.limit.as_ref();
        let cells = [
            run.batch.to_string(),
            run.requests.to_string(),
            run.refused.to_string(),
            format!("{:.2}", run.seconds),
            run.first_token_ms.to_string(),
            run.inter_token_ms.to_string(),
            or_none(decode(|decode| decode.all_first_tokens_ms).map(|ms| format!("{ms:.2}"))),
            or_none(decode(|decode| decode.tokens_per_second).map(|rate| format!("{rate:.1}"))),
            or_none(limit.map(|limit| format!("{:.1} % of {:.1}", limit.percent, limit.tokens_per_second))),
            format!("{:.1}", run.output_tokens_per_second),
            format!("{:.1}", run.prompt_tokens_per_second),
            format!("{:.3}", run.requests_per_second),
            format!("{:.3}", run.images_per_second),
        ];
        writeln!(f, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}, {:.2}, {:.2}", self.p50, self.p95, self.p99)
    }
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

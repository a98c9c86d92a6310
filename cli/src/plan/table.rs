//! A plan for people.

use std::fmt::Write;

use vlm_catalog::footprint::bytes_in_words;

use super::cost::{ApiCost, Cost};
use super::report::{FitReport, GpuRow, Report};

/// The plan of one model as text.
pub(super) fn render(report: &Report) -> String {
    let model = &report.model;
    let exact = if model.exact { "by the stored tensors" } else { "by config.json, no weights were read" };
    let commit = model.revision.as_deref().map(|commit| format!(" at {commit}")).unwrap_or_default();
    let licence = model.licence.as_deref().unwrap_or("not stated: read the model's page before using it");
    let device = report.gpu_type.as_deref().unwrap_or("processors, no GPU");
    let head = [
        ("model", format!("{}{commit}", model.uri)),
        ("family", format!("{}, {:.2} billion parameters ({exact})", model.family, model.parameters as f64 / 1e9)),
        ("licence", licence.to_owned()),
        ("takes", format!("{} tokens, of which a picture is up to {}", model.longest_tokens, model.image_tokens)),
        ("on", device.to_owned()),
    ];
    let mut text = format!("{}\n{}", report.name, pairs(&head));
    fit(&report.fit, &mut text);
    gpus(&report.gpu_types, &mut text);
    if let Some(paid) = &report.cost {
        cost(paid, &mut text);
    }
    text
}

fn fit(fit: &FitReport, text: &mut String) {
    let chosen = fit.chosen_because.as_deref().map(|because| format!(" (auto: {because})")).unwrap_or_default();
    let mut rows = vec![
        ("verdict", fit.message.clone()),
        ("quantization", format!("{}{chosen}", fit.quantization)),
        ("context", format!("{} tokens, {} requests at a time", fit.max_tokens, fit.max_concurrency)),
    ];
    if fit.kv_bytes > 0 {
        let room = format!(
            "{} for keys and values: {} sequences of full length, or {} requests with a picture",
            bytes_in_words(fit.kv_bytes),
            fit.full_length_sequences,
            fit.typical_requests
        );
        rows.push(("room", room));
    }
    if let Some(suggestion) = &fit.suggestion {
        rows.push(("instead", suggestion.clone()));
    }
    text.push_str(&pairs(&rows));
    let parts = &fit.breakdown;
    let mut amounts = vec![vec!["MEMORY".to_owned(), "BYTES".to_owned(), String::new()]];
    for (name, bytes) in [
        ("embedding", parts.embedding_bytes),
        ("decoder", parts.decoder_bytes),
        ("output head", parts.head_bytes),
        ("vision tower", parts.tower_bytes),
        ("projector", parts.projector_bytes),
        ("largest picture", parts.image_bytes),
        ("workspace", parts.workspace_bytes),
        ("device or process", parts.context_bytes),
        ("one full sequence", parts.kv_bytes),
        ("in all", fit.required_bytes),
    ] {
        amounts.push(vec![name.to_owned(), bytes.to_string(), bytes_in_words(bytes)]);
    }
    if let Some(available) = fit.available_bytes {
        amounts.push(vec!["may be used".to_owned(), available.to_string(), bytes_in_words(available)]);
    }
    text.push_str(&columns(&amounts, &[1, 2]));
}

fn gpus(types: &[GpuRow], text: &mut String) {
    let titles = ["GPU TYPE", "MEMORY", "FITS", "QUANT", "TOKENS", "AT A TIME", "USD/H", "TOKENS/S *", "USD/MILLION *"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let number =
        |value: Option<f64>, decimals: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.decimals$}"));
    for gpu in types {
        let filled = |text: String| if gpu.fits { text } else { "-".to_owned() };
        let fits = if gpu.fits { "yes" } else { "no" };
        rows.push(vec![
            if gpu.untested { format!("{} (untested)", gpu.name) } else { gpu.name.clone() },
            bytes_in_words(gpu.memory_bytes),
            fits.to_owned(),
            filled(gpu.quantization.to_owned()),
            filled(gpu.max_tokens.to_string()),
            filled(gpu.max_concurrency.to_string()),
            number(gpu.usd_per_hour, 2),
            number(gpu.tokens_per_second, 0),
            number(gpu.usd_per_million_tokens, 3),
        ]);
    }
    text.push('\n');
    text.push_str(&columns(&rows, &[1, 4, 5, 6, 7, 8]));
    text.push_str("* of answers, one replica fully loaded; estimated from data sheets, not measured\n");
}

fn cost(cost: &Cost, text: &mut String) {
    let mut rows =
        vec![("price", format!("{:.2} USD an hour for one replica ({})", cost.usd_per_hour, cost.price_source))];
    if let (Some(rate), Some(usd)) = (cost.rate, cost.usd_per_million_tokens) {
        let how = if rate.measured { "as measured" } else { "estimated" };
        let words = format!("{usd:.3} USD for a million at {:.0} tokens a second, {how}", rate.tokens_per_second);
        rows.push(("answers", words));
    }
    if let Some(against) = &cost.against_api {
        rows.extend(api(against));
    }
    text.push('\n');
    text.push_str(&pairs(&rows));
}

fn api(cost: &ApiCost) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        (
            "load",
            format!(
                "{} pictures a day: {} replicas, {:.2} USD a day",
                cost.images_per_day, cost.replicas, cost.usd_per_day
            ),
        ),
        ("cloud API", format!("{:.2} USD a day for the same", cost.api_usd_per_day)),
        (
            "difference",
            match cost.saved_usd_per_day {
                saved if saved >= 0.0 => format!("{saved:.2} USD a day are saved"),
                lost => format!("{:.2} USD a day more than the API", -lost),
            },
        ),
    ];
    rows.push((
        "pays from",
        match cost.even_at_images_per_day {
            Some(images) => format!("{images} pictures a day on one replica"),
            None => "no load: one replica costs more than what it can carry would at the API".to_owned(),
        },
    ));
    if let Some(days) = cost.hardware_paid_back_days {
        rows.push((
            "bought",
            format!("the machines have cost no more than the API after {days:.0} days, power not counted"),
        ));
    }
    rows
}

/// Names and what is said of them, one a line.
fn pairs(rows: &[(&str, String)]) -> String {
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<13} {value}");
        text
    })
}

/// Columns as wide as their widest cell; those of `right` are aligned there.
fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|n| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let mut line = String::new();
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if right.contains(&n) { write!(line, "  {cell:>width$}") } else { write!(line, "  {cell:<width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

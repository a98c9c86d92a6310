//! A plan as data: what the JSON form has, and what the table shows.

use serde::Serialize;
use vlm_catalog::footprint::{Breakdown, Device, Fit, Suggestion, Verdict};
use vlm_catalog::gpu::GpuType;

use super::cost::{Cost, Rate};
use crate::checkpoint::Checkpoint;
use crate::manifest::Manifest;

/// The plan of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the object.
    pub name: String,
    /// What is served.
    pub model: ModelReport,
    /// The wished GPU type; absent on processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// How it fits there.
    pub fit: FitReport,
    /// How it fits every GPU type, the cheapest first.
    pub gpu_types: Vec<GpuRow>,
    /// What it costs; absent without a price, or when it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReport {
    /// Where the weights are.
    pub uri: String,
    /// The commit of a repository that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its family.
    pub family: String,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Bytes of the weight files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_file_bytes: Option<u64>,
    /// Whether sizes are those of the stored tensors; else they are reckoned from config.json.
    pub exact: bool,
    /// What its card says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Longest sequence that it takes, in tokens.
    pub longest_tokens: u64,
    /// Tokens of the largest picture.
    pub image_tokens: u64,
}

/// How a model fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FitReport {
    /// `Fits`, `DoesNotFit` or `NoLimit`.
    pub verdict: &'static str,
    /// What is needed and what there is, in words.
    pub message: String,
    /// What would fit, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// Number format.
    pub quantization: &'static str,
    /// Why `auto` chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_because: Option<String>,
    /// Longest sequence in tokens.
    pub max_tokens: u64,
    /// Requests at a time.
    pub max_concurrency: u64,
    /// Bytes for keys and values.
    pub kv_bytes: u64,
    /// Bytes of everything with one sequence of the longest context.
    pub required_bytes: u64,
    /// Bytes that may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Sequences of the longest context at a time.
    pub full_length_sequences: u64,
    /// Requests with one picture at a time.
    pub typical_requests: u64,
    /// What `required_bytes` is made of.
    pub breakdown: Breakdown,
}

/// How a model fits one GPU type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuRow {
    /// Name of the type.
    pub name: String,
    /// All its memory.
    pub memory_bytes: u64,
    /// Whether the model fits.
    pub fits: bool,
    /// Number format.
    pub quantization: &'static str,
    /// Longest sequence in tokens.
    pub max_tokens: u64,
    /// Requests at a time.
    pub max_concurrency: u64,
    /// Dollars an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_hour: Option<f64>,
    /// Estimate of the tokens of answers in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Dollars for a million of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_million_tokens: Option<f64>,
    /// Whether nobody has run a model on one so far.
    pub untested: bool,
}

impl ModelReport {
    pub(super) fn new(manifest: &Manifest, checkpoint: &Checkpoint) -> Self {
        let inspection = &checkpoint.inspection;
        let config = inspection.config();
        Self {
            uri: manifest.uri.clone(),
            revision: inspection.revision().map(ToOwned::to_owned),
            family: config.family.name().to_owned(),
            parameters: inspection.size().parameters(),
            weight_file_bytes: inspection.weight_bytes(),
            exact: inspection.is_exact(),
            licence: checkpoint.licence.clone(),
            longest_tokens: config.text.max_positions as u64,
            image_tokens: config.largest_image_tokens(),
        }
    }
}

impl FitReport {
    pub(super) fn new(fit: &Fit, device: Device, suggestion: Option<&Suggestion>) -> Self {
        Self {
            verdict: match fit.verdict {
                Verdict::Fits => "Fits",
                Verdict::DoesNotFit => "DoesNotFit",
                Verdict::NoLimit => "NoLimit",
            },
            message: fit.in_words(device),
            suggestion: suggestion.map(|suggestion| suggestion.in_words(device)),
            quantization: fit.quantization.name(),
            chosen_because: fit.chosen_because.clone(),
            max_tokens: fit.max_tokens,
            max_concurrency: fit.max_concurrency,
            kv_bytes: fit.kv_bytes,
            required_bytes: fit.required_bytes,
            available_bytes: fit.available_bytes,
            full_length_sequences: fit.full_length_sequences,
            typical_requests: fit.typical_requests,
            breakdown: fit.breakdown.clone(),
        }
    }
}

impl GpuRow {
    pub(super) fn new(name: &str, gpu: &GpuType, fit: &Fit, rate: Option<Rate>) -> Self {
        let usd_per_hour = gpu.price.as_ref().map(|price| price.usd_per_hour);
        let tokens_per_second = rate.map(|rate| rate.tokens_per_second);
        let per_million = |(usd, rate): (f64, f64)| usd / 3600.0 / rate * 1e6;
        Self {
            name: name.to_owned(),
            memory_bytes: gpu.memory_bytes,
            fits: fit.may_start(),
            quantization: fit.quantization.name(),
            max_tokens: fit.max_tokens,
            max_concurrency: fit.max_concurrency,
            usd_per_hour,
            tokens_per_second,
            usd_per_million_tokens: usd_per_hour.zip(tokens_per_second).map(per_million),
            untested: gpu.untested,
        }
    }
}

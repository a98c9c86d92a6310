//! How many tokens a replica gives, what they cost, and what a cloud API would ask for the same.
//!
//! The estimate is a roofline: a step of decoding reads the decoder's weights and the keys and values of all sequences
//! once, a prompt and its picture cost two operations for each weight and row. It is made for planning, from data sheets;
//! a measured rate replaces it.

use serde::Serialize;
use vlm_catalog::checkpoint::Part;
use vlm_catalog::footprint::{Fit, Model};
use vlm_catalog::gpu::{Price, Speed};

use crate::args::LoadArgs;

/// Share of a memory's bandwidth that decoding reaches.
const DECODE_SHARE: f64 = 0.75;
/// Share of the tensor cores' peak that reading prompts and pictures reaches.
const PREFILL_SHARE: f64 = 0.4;
const SECONDS_A_DAY: f64 = 86_400.0;
const MILLION: f64 = 1e6;

/// What one replica gives under full load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Tokens of answers in a second, with the time that prompts and pictures take.
    pub tokens_per_second: f64,
    /// Whether it was measured; else it is an estimate by the data sheet.
    pub measured: bool,
}

impl Rate {
    /// A rate that somebody measured.
    pub fn measured(tokens_per_second: f64) -> Self {
        Self { tokens_per_second, measured: true }
    }
}

/// What serving costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Dollars an hour for one replica.
    pub usd_per_hour: f64,
    /// Whose price that is.
    pub price_source: String,
    /// What a replica gives; absent when neither measured nor known from a data sheet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Dollars for a million tokens of answers when a replica is always busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_million_tokens: Option<f64>,
    /// The same load at a cloud API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_api: Option<ApiCost>,
}

/// A load here and at a cloud API.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiCost {
    /// Pictures in a day.
    pub images_per_day: u64,
    /// Replicas that carry them, if they come evenly; always on.
    pub replicas: u64,
    /// Dollars a day here.
    pub usd_per_day: f64,
    /// Dollars a day at the API.
    pub api_usd_per_day: f64,
    /// Dollars a day that serving here saves; below 0 it costs more.
    pub saved_usd_per_day: f64,
    /// Pictures in a day from which one replica costs no more than the API; absent when it cannot carry as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub even_at_images_per_day: Option<u64>,
    /// Days after which machines that were bought have cost no more than the API; absent without a price for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_paid_back_days: Option<f64>,
}

/// What a replica gives by the data sheet of its GPU, at its full concurrency and the load's lengths.
pub fn estimate(model: Model<'_>, fit: &Fit, speed: Speed, load: &LoadArgs) -> Rate {
    let vision = &model.config.vision;
    let answer = load.tokens as f64;
    let prompt = (model.config.largest_image_tokens() + load.question_tokens) as f64;
    let breakdown = &fit.breakdown;
    let sequences = fit.max_concurrency.max(1) as f64;
    let kv = sequences * (prompt + answer / 2.0) * breakdown.kv_bytes_per_token as f64;
    let step =
        ((breakdown.decoder_bytes + breakdown.head_bytes) as f64 + kv) / (speed.memory_bytes_per_second * DECODE_SHARE);
    let patches = (model.config.largest_image_tiles() as f64) * (vision.grid() * vision.grid()) as f64;
    let parameters = |part| model.size.parameters_of(part) as f64;
    let operations = 2.0 * (parameters(Part::DecoderLinear) * prompt + parameters(Part::Tower) * patches);
    let prefill = operations / (speed.tensor_flops_per_second * PREFILL_SHARE);
    Rate { tokens_per_second: answer / (prefill + answer * step / sequences), measured: false }
}

/// What it costs at `price`, and what a cloud API asks.
pub fn cost(price: &Price, rate: Option<Rate>, load: &LoadArgs) -> Cost {
    let a_day = 24.0 * price.usd_per_hour;
    let per_million = rate.map(|rate| price.usd_per_hour / 3600.0 / rate.tokens_per_second * MILLION);
    let against = load.images_per_day.zip(rate).map(|(images, rate)| against_api(a_day, images, rate, load));
    Cost {
        usd_per_hour: price.usd_per_hour,
        price_source: price.source.clone(),
        rate,
        usd_per_million_tokens: per_million,
        against_api: against,
    }
}

fn against_api(a_day: f64, images: u64, rate: Rate, load: &LoadArgs) -> ApiCost {
    let carried = rate.tokens_per_second * SECONDS_A_DAY / load.tokens as f64;
    let replicas = (images as f64 / carried).ceil().max(1.0);
    let prompt = (load.api_image_tokens + load.question_tokens) as f64 * load.api_usd_per_million_prompt_tokens;
    let an_image = (prompt + load.tokens as f64 * load.api_usd_per_million_answer_tokens) / MILLION;
    let (here, api) = (replicas * a_day, an_image * images as f64);
    let even = (a_day / an_image).ceil();
    let paid = load.hardware_usd.map(|machine| machine * replicas / api).filter(|days| days.is_finite());
    ApiCost {
        images_per_day: images,
        replicas: replicas as u64,
        usd_per_day: here,
        api_usd_per_day: api,
        saved_usd_per_day: api - here,
        even_at_images_per_day: (even <= carried).then_some(even as u64),
        hardware_paid_back_days: paid,
    }
}

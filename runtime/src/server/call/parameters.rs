//! The parameters of generation, which the endpoints spell alike, and their ranges.

use std::collections::BTreeMap;

use vlm_contract::openai::chat::{ChatRequest, Stop};
use vlm_contract::openai::completions::CompletionRequest;
use vlm_contract::openai::responses::ResponsesRequest;

use super::super::error::{ApiError, excerpt};
use super::Limits;
use crate::engine::{Sampling, Steering};

/// Stop strings in one request, as many as `OpenAI` allows.
const MOST_STOPS: usize = 4;
/// Stop tokens in one request.
const MOST_STOP_IDS: usize = 128;
/// Biases in one request; `OpenAI` allows 300.
const MOST_BIASES: usize = 1024;
/// Answers to one request, as many as `OpenAI` allows.
const MOST_ANSWERS: u32 = 128;
/// Likeliest tokens that are told, as many as `OpenAI` allows.
const MOST_LOGPROBS: u32 = 20;

/// The longest answer that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimit {
    /// Tokens; at least 1.
    pub tokens: usize,
    /// The field that said so.
    pub param: &'static str,
}

/// How an answer is generated.
#[derive(Clone, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What changes the logits before; without the form of the answer.
    pub steering: Steering,
    /// Likeliest tokens that are told beside each.
    pub logprobs: Option<usize>,
    /// The longest answer; absent means what the context holds.
    pub answer: Option<AnswerLimit>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Tokens that end the answer.
    pub stop_ids: Vec<u32>,
    /// Go on past the end-of-text token.
    pub ignore_eos: bool,
    /// How many answers; at least 1.
    pub answers: usize,
}

/// The parameters as a request spells them.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    seed: Option<i64>,
    stop: Option<Stop>,
    stop_token_ids: Option<Vec<u32>>,
    n: Option<u32>,
    min_tokens: Option<u32>,
    ignore_eos: Option<bool>,
    /// The longest answer and the field that says so, the one that counts first.
    longest: Vec<(Option<u32>, &'static str)>,
    /// Whether probabilities are told.
    logprobs: bool,
    top_logprobs: Option<u32>,
    /// The field of the latter.
    top_param: &'static str,
}

/// Fields of the same names in a request and here.
macro_rules! same {
    ($request:ident, {$($field:ident),*}, $($rest:tt)*) => {
        Self { $($field: $request.$field.clone(),)* $($rest)* }
    };
}

impl From<&ChatRequest> for Parameters {
    fn from(request: &ChatRequest) -> Self {
        same!(
            request,
            {temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty, logit_bias,
             seed, stop, stop_token_ids, n, min_tokens, ignore_eos, top_logprobs},
            longest: vec![
                (request.max_completion_tokens, "max_completion_tokens"),
                (request.max_tokens, "max_tokens"),
            ],
            logprobs: request.logprobs.unwrap_or(false),
            top_param: "top_logprobs",
        )
    }
}

/// Longest answer of the completions endpoint, where a request does not say; as `OpenAI`'s.
const COMPLETION_TOKENS: u32 = 16;

impl From<&CompletionRequest> for Parameters {
    fn from(request: &CompletionRequest) -> Self {
        same!(
            request,
            {temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty, logit_bias,
             seed, stop, stop_token_ids, n, min_tokens, ignore_eos},
            longest: vec![(request.max_tokens.or(Some(COMPLETION_TOKENS)), "max_tokens")],
            logprobs: request.logprobs.is_some(),
            top_logprobs: request.logprobs,
            top_param: "logprobs",
        )
    }
}

impl From<&ResponsesRequest> for Parameters {
    fn from(request: &ResponsesRequest) -> Self {
        same!(
            request,
            {temperature, top_p, seed},
            longest: vec![(request.max_output_tokens, "max_output_tokens")],
            ..Self::default()
        )
    }
}

impl Parameters {
    /// Checks every value.
    pub fn check(self, limits: Limits) -> Result<Generation, ApiError> {
        let sampling = self.sampling(limits)?;
        let steering = self.steering()?;
        Ok(Generation {
            sampling,
            steering,
            logprobs: self.top_logprobs()?,
            answer: self.answer_limit()?,
            answers: self.answers(limits)?,
            stop: stops(self.stop)?,
            stop_ids: stop_ids(self.stop_token_ids)?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
        })
    }

    fn sampling(&self, limits: Limits) -> Result<Sampling, ApiError> {
        let defaults = limits.defaults;
        let top_k = match self.top_k {
            None => defaults.top_k,
            Some(-1) => 0,
            Some(k) => u32::try_from(k).map_err(|_| {
                ApiError::field("top_k", format!("top_k: {k} is out of range; send 1 to {}, or 0 for all", u32::MAX))
            })?,
        };
        Ok(Sampling {
            temperature: within("temperature", self.temperature, defaults.temperature, 0.0..=2.0)?,
            top_p: share("top_p", self.top_p, defaults.top_p, 1.0)?,
            top_k,
            min_p: within("min_p", self.min_p, 0.0, 0.0..=1.0)?,
            seed: self.seed.map(i64::cast_unsigned),
        })
    }

    fn steering(&self) -> Result<Steering, ApiError> {
        Ok(Steering {
            presence_penalty: within("presence_penalty", self.presence_penalty, 0.0, -2.0..=2.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, 0.0, -2.0..=2.0)?,
            repetition_penalty: share("repetition_penalty", self.repetition_penalty, 1.0, 10.0)?,
            bias: self.biases()?,
            min_tokens: self.min_tokens.unwrap_or(0) as usize,
            guide: None,
        })
    }

    fn biases(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(biases) = &self.logit_bias else { return Ok(Vec::new()) };
        if biases.len() > MOST_BIASES {
            let message = format!("logit_bias: {} tokens were sent; send at most {MOST_BIASES}", biases.len());
            return Err(ApiError::field("logit_bias", message));
        }
        let one = |(key, bias): (&String, &f32)| {
            let param = format!("logit_bias.{}", excerpt(key));
            let Ok(id) = key.parse() else {
                let message = format!("{param}: this is no token id; /tokenize tells the ids of a text");
                return Err(ApiError::field(param, message));
            };
            if !(-100.0..=100.0).contains(bias) {
                let message = format!("{param}: {bias} is out of range; send -100 to 100");
                return Err(ApiError::field(param, message));
            }
            Ok((id, *bias))
        };
        biases.iter().map(one).collect()
    }

    fn top_logprobs(&self) -> Result<Option<usize>, ApiError> {
        let (param, top) = (self.top_param, self.top_logprobs);
        match top {
            Some(top) if top > MOST_LOGPROBS => {
                let message = format!("{param}: {top} is out of range; send 0 to {MOST_LOGPROBS}");
                Err(ApiError::field(param, message))
            }
            Some(_) if !self.logprobs => {
                Err(ApiError::field(param, format!("{param}: it needs `logprobs`: true beside it")))
            }
            top => Ok(self.logprobs.then(|| top.unwrap_or(0) as usize)),
        }
    }

    fn answer_limit(&self) -> Result<Option<AnswerLimit>, ApiError> {
        let given = self.longest.iter().find_map(|(tokens, param)| tokens.map(|tokens| (tokens, *param)));
        match given {
            Some((0, param)) => Err(ApiError::field(param, format!("{param}: 0 is out of range; send at least 1"))),
            Some((most, param)) if self.min_tokens.is_some_and(|least| least > most) => {
                let message = format!("min_tokens: it is more than {param}, {most}; lower it");
                Err(ApiError::field("min_tokens", message))
            }
            given => Ok(given.map(|(tokens, param)| AnswerLimit { tokens: tokens as usize, param })),
        }
    }

    fn answers(&self, limits: Limits) -> Result<usize, ApiError> {
        let most = MOST_ANSWERS.min(u32::try_from(limits.answers).unwrap_or(MOST_ANSWERS)).max(1);
        match self.n.unwrap_or(1) {
            n if (1..=most).contains(&n) => Ok(n as usize),
            n => Err(ApiError::field("n", format!("n: {n} answers are out of range; send 1 to {most}"))),
        }
    }
}

fn within(
    param: &'static str,
    value: Option<f32>,
    default: f32,
    range: std::ops::RangeInclusive<f32>,
) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let message = format!("{param}: {value} is out of range; send {} to {}", range.start(), range.end());
    Err(ApiError::field(param, message))
}

/// More than 0 and at most `most`.
fn share(param: &'static str, value: Option<f32>, default: f32, most: f32) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if value > 0.0 && value <= most {
        return Ok(value);
    }
    let message = format!("{param}: {value} is out of range; send more than 0 and at most {most}");
    Err(ApiError::field(param, message))
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MOST_STOPS {
        let message = format!("stop: {} strings were sent; send at most {MOST_STOPS}", stops.len());
        return Err(ApiError::field("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "stop: an empty string ends nothing; leave it out"));
    }
    Ok(stops)
}

fn stop_ids(ids: Option<Vec<u32>>) -> Result<Vec<u32>, ApiError> {
    let ids = ids.unwrap_or_default();
    if ids.len() > MOST_STOP_IDS {
        let message = format!("stop_token_ids: {} tokens were sent; send at most {MOST_STOP_IDS}", ids.len());
        return Err(ApiError::field("stop_token_ids", message));
    }
    Ok(ids)
}

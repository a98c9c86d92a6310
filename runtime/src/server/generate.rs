//! The way that all requests for answers go: a place, the body, the prompt, the form, the engine.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use vlm_contract::continuation::{AnswerState, Identity};
use vlm_contract::{headers, metrics as names};

use super::admission::{BodyRoom, Place};
use super::answer::{Answer, Begin};
use super::answers::Answers;
use super::app::{App, Loaded};
use super::body::{self, Kind};
use super::call::{Form, Generation};
use super::continuation::{Continued, Relay};
use super::error::ApiError;
use super::lifecycle::Phase;
use super::parse;
use super::request_id::RequestId;
use crate::engine::fair::ClientId;
use crate::engine::{self, AnswerStart, TokenStream};
use crate::guide::{Guide, GuideError};
use crate::metrics::{Refusal, Via};
use crate::prompt::Prompt;

/// Bodies of more bytes are parsed away from the async threads.
const PARSE_INLINE: usize = 64 * 1024;

/// What answers keep of their request.
pub struct Start {
    /// When it arrived.
    pub arrived: Instant,
    /// Its id.
    pub id: RequestId,
    /// Its place.
    pub place: Place,
    /// Which stream it is.
    pub identity: Identity,
    /// How it is handed from server to server.
    pub relay: Relay,
}

/// A request that has a place.
pub struct Entered<'a> {
    /// The model.
    pub model: &'a Loaded,
    /// The place.
    pub place: Place,
    /// The request.
    pub request: Request,
    /// How its stream is handed from server to server.
    pub relay: Relay,
}

/// How a request came, by its header.
pub fn via(request: &Request) -> Via {
    let gateway = request.headers().get(headers::VIA).is_some_and(|via| via == names::via::GATEWAY);
    if gateway { Via::Gateway } else { Via::Direct }
}

/// Counts a request for answers, and what becomes of it.
pub async fn counted(app: &App, via: Via, work: impl Future<Output = Result<Response, ApiError>>) -> Response {
    app.metrics.arrived(via);
    work.await.unwrap_or_else(|error| {
        match error {
            ApiError::QueueFull { .. } => app.metrics.refused(Refusal::QueueFull),
            ApiError::Loading(_) | ApiError::Draining => app.metrics.refused(Refusal::NotReady),
            _ => {}
        }
        error.into_response()
    })
}

/// Takes a place, or refuses before the body is looked at. `kinds` are the bodies that the endpoint reads.
pub async fn enter<'a>(app: &'a App, request: Request, kinds: &[Kind]) -> Result<Entered<'a>, ApiError> {
    let entered = app.model().and_then(|model| {
        body::kind(request.headers(), kinds)?;
        let full = || {
            let now = model.engine.snapshot();
            ApiError::QueueFull { retry_after_seconds: now.retry_after_seconds }
        };
        let client = request.extensions().get::<ClientId>().copied().unwrap_or_default();
        let place = app.admission.try_enter(client).ok_or_else(full)?;
        // Once closed, no place may be taken: the drain waits for all of them to be free.
        if app.lifecycle.phase() == Phase::Closed {
            return Err(ApiError::Draining);
        }
        Ok((model, place))
    });
    match entered {
        Ok((model, place)) => Ok(Entered { model, place, relay: Relay::of(&request), request }),
        Err(error) => {
            body::discard(request.into_body(), app.limits.body_bytes).await;
            Err(error)
        }
    }
}

/// Does `work` unless the drain deadline passes.
pub async fn unless_aborted<T>(app: &App, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::select! {
        done = work => done,
        () = app.lifecycle.aborted().cancelled() => Err(ApiError::Aborted),
    }
}

/// Receives a body.
pub async fn receive(app: &App, request: Request) -> Result<(Parts, Bytes, BodyRoom), ApiError> {
    let (parts, body): (_, Body) = request.into_parts();
    let length = body::announced(&parts.headers);
    let mut room = match parts.extensions.get::<Continued>().and_then(Continued::take_room) {
        Some(room) => room,
        None => app.admission.body_room(length).await.ok_or(ApiError::Internal)?,
    };
    let bytes = body::receive(body, length, &app.limits).await?;
    room.shrink(bytes.len());
    Ok((parts, bytes, room))
}

/// Reads a body of JSON.
pub async fn json<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<T, ApiError> {
    if bytes.len() <= PARSE_INLINE {
        return parse::json(&bytes);
    }
    blocking(move || parse::json(&bytes)).await
}

/// Does work that takes long away from the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "work on a request panicked");
        Err(ApiError::Internal)
    })
}

/// Makes the guide of a form. At most one form per core is made at a time.
pub async fn guide(app: &Arc<App>, model: &Loaded, form: Form) -> Result<Option<Guide>, ApiError> {
    if matches!(form, Form::Text) {
        return Ok(None);
    }
    let core = Arc::clone(&app.forms).acquire_owned().await.map_err(|_| ApiError::Internal)?;
    let processor = Arc::clone(&model.processor);
    blocking(move || {
        let _core = core;
        let refuse = |param: &'static str| move |why: GuideError| ApiError::field(param, format!("{param}: {why}"));
        let forms = processor.forms().map_err(refuse("response_format"))?;
        let guide = match form {
            Form::Text => return Ok(None),
            Form::Object => forms.json_object().map_err(refuse("response_format")),
            Form::Schema { schema, param } => forms.json(&schema).map_err(refuse(param)),
            Form::Calls { functions, several } => forms.calls(&functions, several).map_err(refuse("tools")),
        };
        guide.map(Some)
    })
    .await
}

/// Hands prompts to the engine. `param` is the field that a prompt came in, and `calls` says whether calls of functions
/// are taken out of the answers.
pub fn submit(
    app: &Arc<App>,
    model: &Loaded,
    prompts: Vec<Prompt>,
    generation: &Generation,
    (param, calls): (&'static str, bool),
    start: Start,
) -> Result<Answers, ApiError> {
    let (client, place) = (start.place.client(), Arc::new(start.place));
    let eos = !generation.ignore_eos;
    let stop_ids = model.processor.stop_ids().iter().copied().filter(|_| eos);
    let stop_ids: Vec<u32> = stop_ids.chain(generation.stop_ids.iter().copied()).collect();
    let stop_string = model.processor.stop_string().filter(|_| eos).map(str::to_owned);
    let stop: Vec<String> = generation.stop.iter().cloned().chain(stop_string).collect();
    let mut before = start.relay.answers(prompts.len() * generation.answers)?.into_iter();
    let mut answers = Vec::with_capacity(before.len());
    for prompt in prompts {
        let prompt_tokens = prompt.ids.len();
        let request = engine::Request {
            max_new_tokens: answer_tokens(generation, &prompt, model.max_tokens, param)?,
            prompt,
            sampling: engine::Sampling { seed: Some(start.identity.seed), ..generation.sampling },
            steering: generation.steering.clone(),
            logprobs: generation.logprobs,
            stop_ids: stop_ids.clone(),
            generated: Vec::new(),
        };
        let before: Vec<AnswerState> = before.by_ref().take(generation.answers).collect();
        let streams = begin(model, client, request, &before)?;
        app.metrics.prompt(prompt_tokens);
        for (tokens, before) in streams.into_iter().zip(before) {
            let begin = Begin {
                tokens,
                processor: Arc::clone(&model.processor),
                stop: stop.clone(),
                min_tokens: generation.steering.min_tokens,
                calls,
                prompt_tokens,
                before,
                arrived: start.arrived,
                place: Arc::clone(&place),
                id: start.id.to_string(),
            };
            answers.push(Answer::new(Arc::clone(app), begin));
        }
    }
    Ok(Answers::new(answers, generation.answers, start.identity, &start.relay))
}

/// Hands a prompt to the engine, for those of its answers that have not ended.
fn begin(
    model: &Loaded,
    client: ClientId,
    request: engine::Request,
    before: &[AnswerState],
) -> Result<Vec<Option<TokenStream>>, ApiError> {
    let running = (0..).zip(before).filter(|(_, before)| before.ended.is_none());
    let starts = running.map(|(number, before)| AnswerStart { number, generated: before.tokens.clone() });
    let streams = model.engine.submit_several(client, request, starts.collect())?;
    let mut streams = streams.into_iter();
    Ok(before.iter().map(|before| if before.ended.is_none() { streams.next() } else { None }).collect())
}

/// Longest answer: what was asked for, or all that the context has left.
fn answer_tokens(
    generation: &Generation,
    prompt: &Prompt,
    context: usize,
    param: &'static str,
) -> Result<usize, ApiError> {
    let (prompt, text, images) = (prompt.ids.len(), prompt.text_tokens(), prompt.image_tokens());
    let room = context.saturating_sub(prompt);
    if room == 0 {
        let message = format!(
            "the prompt has {prompt} tokens, {text} of text and {images} of images, and the context holds {context}, \
             prompt and answer together; shorten {param} or send fewer images"
        );
        return Err(ApiError::ContextLength { param, message });
    }
    match generation.answer {
        None => Ok(room),
        Some(limit) if limit.tokens <= room => Ok(limit.tokens),
        Some(limit) => {
            let message = format!(
                "{}: {} tokens after a prompt of {prompt} are more than the context of {context}; \
                 lower it to at most {room}",
                limit.param, limit.tokens
            );
            Err(ApiError::ContextLength { param: limit.param, message })
        }
    }
}

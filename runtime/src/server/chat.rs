//! `POST /v1/chat/completions`: the way of one request from its first byte to the engine and back.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use uuid::Uuid;
use vlm_contract::openai::chat::{AnswerMessage, ChatChunk, ChatResponse, Choice, ChunkChoice, Role};

use super::admission::{BodyRoom, Place, retry_after_seconds};
use super::answer::{Answer, Begin, Piece};
use super::app::{App, Loaded, unix_seconds};
use super::body::{self, Kind};
use super::call::Call;
use super::error::ApiError;
use super::lifecycle::Phase;
use super::request_id::RequestId;
use super::{form, media, parse, stream};
use crate::engine;
use crate::metrics::Refusal;
use crate::prompt::Prompt;

/// Bodies of more bytes are parsed away from the async threads.
const PARSE_INLINE: usize = 64 * 1024;

/// What every chunk and the whole response begin with.
#[derive(Clone, Debug)]
pub struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(model: String) -> Self {
        Self { id: format!("chatcmpl-{}", Uuid::new_v4().simple()), created: unix_seconds(), model }
    }

    /// A chunk without usage.
    pub fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
        }
    }
}

/// The handler.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    app.metrics.arrived(request.headers());
    match generate(&app, arrived, id, request).await {
        Ok(response) => response,
        Err(error) => {
            match error {
                ApiError::QueueFull { .. } => app.metrics.refused(Refusal::QueueFull),
                ApiError::Loading | ApiError::Draining => app.metrics.refused(Refusal::NotReady),
                _ => {}
            }
            error.into_response()
        }
    }
}

async fn generate(app: &Arc<App>, arrived: Instant, id: RequestId, request: Request) -> Result<Response, ApiError> {
    let (model, place, request) = enter(app, request).await?;
    let preparing = async {
        let (mut call, room) = read(app, model, request).await?;
        let _waiting = app.metrics.in_media_stage();
        let prompt = media::prepare(app, model, &mut call, room).await?;
        Ok::<_, ApiError>((call, prompt))
    };
    let (mut call, prompt) = tokio::select! {
        prepared = preparing => prepared?,
        () = app.lifecycle.aborted().cancelled() => return Err(ApiError::Aborted),
    };
    let answer = submit(app, model, &mut call, prompt, Start { arrived, id, place })?;
    let head = Head::new(call.model);
    if call.stream {
        return Ok(stream::respond(answer, head, call.include_usage, app.limits.keep_alive));
    }
    whole(answer, head).await
}

/// Takes a place, or refuses before the body is looked at.
async fn enter(app: &App, request: Request) -> Result<(&Loaded, Place, Request), ApiError> {
    let entered = app.model().and_then(|model| {
        body::kind(request.headers())?;
        let full = || {
            let now = model.engine.snapshot();
            ApiError::QueueFull { retry_after_seconds: retry_after_seconds(&now) }
        };
        let place = app.admission.try_enter().ok_or_else(full)?;
        // Once closed, no place may be taken: the drain waits for all of them to be free.
        if app.lifecycle.phase() == Phase::Closed {
            return Err(ApiError::Draining);
        }
        Ok((model, place))
    });
    match entered {
        Ok((model, place)) => Ok((model, place, request)),
        Err(error) => {
            body::discard(request.into_body(), app.limits.body_bytes).await;
            Err(error)
        }
    }
}

/// Receives and checks the body, of either kind.
async fn read(app: &Arc<App>, model: &Loaded, request: Request) -> Result<(Call, BodyRoom), ApiError> {
    let (parts, body): (_, Body) = request.into_parts();
    let length = body::announced(&parts.headers);
    let room = app.admission.body_room(length).await.ok_or(ApiError::Internal)?;
    let bytes = body::receive(body, length, &app.limits).await?;
    let (request, uploads) = match body::kind(&parts.headers)? {
        Kind::Form => form::read(parts, bytes).await?,
        Kind::Json if bytes.len() <= PARSE_INLINE => (parse::json(&bytes)?, Vec::new()),
        Kind::Json => {
            let parsing = tokio::task::spawn_blocking(move || parse::json(&bytes)).await;
            (parsing.map_err(|_| ApiError::Internal)??, Vec::new())
        }
    };
    Ok((Call::check(request, uploads, app, model.defaults)?, room))
}

/// What an answer keeps of its request.
struct Start {
    arrived: Instant,
    id: RequestId,
    place: Place,
}

fn submit(app: &Arc<App>, model: &Loaded, call: &mut Call, prompt: Prompt, start: Start) -> Result<Answer, ApiError> {
    let prompt_tokens = prompt.ids.len();
    let mut stop = std::mem::take(&mut call.stop);
    stop.extend(model.processor.stop_string().filter(|_| !call.ignore_eos).map(str::to_owned));
    let request = engine::Request {
        max_new_tokens: answer_tokens(call, &prompt, model.max_tokens)?,
        prompt,
        sampling: call.sampling,
        stop_ids: if call.ignore_eos { Vec::new() } else { model.processor.stop_ids().to_vec() },
    };
    let tokens = model.engine.submit(request).inspect_err(|error| {
        if *error == engine::SubmitError::Stopped {
            app.lifecycle.engine_lost().cancel();
        }
    })?;
    let begin = Begin {
        tokens,
        detokenizer: model.processor.detokenizer(),
        stop,
        prompt_tokens,
        arrived: start.arrived,
        place: start.place,
        id: start.id.to_string(),
    };
    Ok(Answer::new(Arc::clone(app), begin))
}

/// Longest answer: what was asked for, or all that the context has left.
fn answer_tokens(call: &Call, prompt: &Prompt, context: usize) -> Result<usize, ApiError> {
    let (prompt, text, images) = (prompt.ids.len(), prompt.text_tokens(), prompt.image_tokens());
    let room = context.saturating_sub(prompt);
    if room == 0 {
        let message = format!(
            "the prompt has {prompt} tokens, {text} of text and {images} of images, and the context holds {context}, \
             prompt and answer together; shorten the messages or send fewer images"
        );
        return Err(ApiError::ContextLength { param: "messages", message });
    }
    match call.answer {
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

/// Collects an answer that is not streamed.
async fn whole(mut answer: Answer, head: Head) -> Result<Response, ApiError> {
    let mut content = String::new();
    let mut finish_reason = None;
    while let Some(piece) = answer.next().await {
        match piece? {
            Piece::Text(text) => content.push_str(&text),
            Piece::End(reason) => finish_reason = Some(reason.to_owned()),
        }
    }
    let message = AnswerMessage { role: Role::Assistant, content };
    let response = ChatResponse {
        id: head.id,
        object: "chat.completion".into(),
        created: head.created,
        model: head.model,
        choices: vec![Choice { index: 0, message, finish_reason }],
        usage: answer.usage(),
    };
    Ok(Json(response).into_response())
}

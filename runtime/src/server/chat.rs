//! `POST /v1/chat/completions`: answers to a conversation.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use vlm_contract::continuation::Identity;
use vlm_contract::openai::chat::{
    AnswerMessage, ChatChunk, ChatRequest, ChatResponse, Choice, ChoiceLogprobs, ChunkChoice, Delta, Role,
};
use vlm_contract::openai::tools::{FunctionCall, FunctionDelta, ToolCall, ToolCallDelta, ToolType};
use vlm_contract::openai::usage::Usage;

use super::admission::BodyRoom;
use super::answer::Piece;
use super::answers::{Voice, Whole};
use super::app::{App, Loaded};
use super::body::{self, Kind};
use super::call::Call;
use super::error::ApiError;
use super::events::{Event, done, event};
use super::generate::{self, Entered, Start};
use super::identity::{identity, item_name};
use super::request_id::RequestId;
use super::said_tokens::SaidToken;
use super::{form, media, stream};

/// What the name of a call begins with.
const CALL: &str = "call";

/// The handler.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let (arrived, via) = (Instant::now(), generate::via(&request));
    generate::counted(&app, via, Box::pin(answer(&app, arrived, id, request))).await
}

async fn answer(app: &Arc<App>, arrived: Instant, id: RequestId, request: Request) -> Result<Response, ApiError> {
    let Entered { model, place, request, relay } = generate::enter(app, request, &[Kind::Json, Kind::Form]).await?;
    let (call, prompt, guide) = generate::unless_aborted(app, async {
        let (mut call, room) = read(app, model, request).await?;
        let _waiting = app.metrics.in_media_stage();
        let prompt = media::prepare(app, model, &mut call, room).await?;
        let guide = generate::guide(app, model, call.form.clone()).await?;
        Ok((call, prompt, guide))
    })
    .await?;
    relay.check(call.stream)?;
    let mut generation = call.generation;
    generation.steering.guide = guide;
    let identity = identity("chatcmpl-", generation.sampling.seed, relay.from.as_ref());
    let start = Start { arrived, id, place, identity: identity.clone(), relay };
    let answers = generate::submit(app, model, vec![prompt], &generation, ("messages", call.calls), start)?;
    let logprobs = generation.logprobs.is_some();
    let voice = ChatVoice::new(identity, call.model, answers.count(), call.include_usage, logprobs);
    if call.stream {
        return Ok(stream::respond(answers, voice, app.limits.keep_alive));
    }
    answers.whole(voice).await
}

/// Receives and checks the body, of either kind.
async fn read(app: &Arc<App>, model: &Loaded, request: Request) -> Result<(Call, BodyRoom), ApiError> {
    let (parts, bytes, room) = generate::receive(app, request).await?;
    let (request, uploads) = match body::kind(&parts.headers, &[Kind::Json, Kind::Form])? {
        Kind::Form => form::read(parts, bytes).await?,
        Kind::Json => (generate::json::<ChatRequest>(bytes).await?, Vec::new()),
    };
    Ok((Call::check(request, uploads, app, model.into())?, room))
}

/// Writes answers as this endpoint does: in a stream a chunk with the role, chunks of text and calls, a chunk with the
/// reason, the usage if asked for, `[DONE]`.
struct ChatVoice {
    /// The chunk to send: all stay alike but for what is new in each.
    chunk: ChatChunk,
    count: usize,
    include_usage: bool,
    logprobs: bool,
    /// Calls so far, of each answer.
    calls: Vec<u32>,
}

impl ChatVoice {
    fn new(identity: Identity, model: String, count: usize, include_usage: bool, logprobs: bool) -> Self {
        let chunk = ChatChunk {
            id: identity.id,
            object: "chat.completion.chunk".into(),
            created: identity.created,
            model,
            choices: Vec::new(),
            usage: None,
        };
        Self { chunk, count, include_usage, logprobs, calls: vec![0; count] }
    }

    fn chunk(&mut self, choices: impl IntoIterator<Item = ChunkChoice>, usage: Option<Usage>) -> Event {
        self.chunk.choices.clear();
        self.chunk.choices.extend(choices);
        self.chunk.usage = usage;
        event(&self.chunk)
    }

    fn delta(&mut self, index: usize, delta: Delta, tokens: Vec<SaidToken>, reason: Option<&str>) -> Event {
        let logprobs = (self.logprobs && !tokens.is_empty()).then(|| logprobs(tokens));
        let finish_reason = reason.map(Into::into);
        self.chunk([ChunkChoice { index: index as u32, delta, logprobs, finish_reason }], None)
    }

    fn call(&mut self, answer: usize, name: String, arguments: String) -> Vec<Event> {
        let index = self.calls.get(answer).copied().unwrap_or(0);
        self.calls.get_mut(answer).into_iter().for_each(|calls| *calls += 1);
        let begin = ToolCallDelta {
            index,
            id: Some(item_name(&self.chunk.id, CALL, answer, index as usize)),
            r#type: Some(ToolType::Function),
            function: FunctionDelta { name: Some(name), arguments: String::new() },
        };
        let function = FunctionDelta { name: None, arguments };
        let rest = ToolCallDelta { index, id: None, r#type: None, function };
        let delta = |call| Delta { tool_calls: Some(vec![call]), ..Delta::default() };
        [begin, rest].into_iter().map(|call| self.delta(answer, delta(call), Vec::new(), None)).collect()
    }
}

fn logprobs(tokens: Vec<SaidToken>) -> ChoiceLogprobs {
    ChoiceLogprobs { content: tokens.into_iter().map(|said| said.token).collect() }
}

impl Voice for ChatVoice {
    fn whole(self, answers: Vec<Whole>, usage: Usage) -> Response {
        let choice = |(index, whole): (usize, Whole)| {
            let call = |(place, (name, arguments))| ToolCall {
                id: item_name(&self.chunk.id, CALL, index, place),
                r#type: ToolType::Function,
                function: FunctionCall { name, arguments },
            };
            let calls: Vec<ToolCall> = whole.calls.into_iter().enumerate().map(call).collect();
            let content = (calls.is_empty() || !whole.text.trim().is_empty()).then_some(whole.text);
            Choice {
                index: index as u32,
                message: AnswerMessage {
                    role: Role::Assistant,
                    content,
                    tool_calls: (!calls.is_empty()).then_some(calls),
                },
                logprobs: self.logprobs.then(|| logprobs(whole.tokens)),
                finish_reason: Some(whole.reason.to_owned()),
            }
        };
        let choices = answers.into_iter().enumerate().map(choice).collect();
        let response = ChatResponse {
            id: self.chunk.id,
            object: "chat.completion".into(),
            created: self.chunk.created,
            model: self.chunk.model,
            choices,
            usage,
        };
        Json(response).into_response()
    }

    fn begin(&mut self) -> Vec<Event> {
        let delta = || Delta { role: Some(Role::Assistant), content: Some(String::new()), ..Delta::default() };
        (0..self.count).map(|index| self.delta(index, delta(), Vec::new(), None)).collect()
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Event> {
        match piece {
            Piece::Text { text, tokens } => {
                let delta = Delta { content: Some(text), ..Delta::default() };
                vec![self.delta(index, delta, tokens, None)]
            }
            Piece::Call { name, arguments } => self.call(index, name, arguments),
            Piece::End { reason, .. } => vec![self.delta(index, Delta::default(), Vec::new(), Some(reason))],
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.include_usage.then(|| self.chunk([], Some(usage)));
        usage.into_iter().chain([done()]).collect()
    }
}

//! `POST /v1/completions`: texts continued.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use vlm_contract::openai::completions::{CompletionRequest, CompletionResponse, TextChoice, TextLogprobs, TextPrompt};
use vlm_contract::openai::usage::Usage;

use super::answer::Piece;
use super::answers::{Voice, Whole};
use super::app::{App, Loaded};
use super::body::Kind;
use super::call::{Form, Offer, Parameters};
use super::error::ApiError;
use super::events::{Event, done, event};
use super::generate::{self, Entered, Start};
use super::identity::identity;
use super::request_id::RequestId;
use super::said_tokens::SaidToken;
use super::stream;
use crate::processor::{Processor, PromptError};
use crate::prompt::Prompt;

/// Prompts in one request.
const MOST_PROMPTS: usize = 128;

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
    let Entered { model, place, request, relay } = generate::enter(app, request, &[Kind::Json]).await?;
    let (asked, prompts, mut generation, guide) = generate::unless_aborted(app, async {
        let (_, bytes, room) = generate::receive(app, request).await?;
        let mut asked: CompletionRequest = generate::json(bytes).await?;
        asked.model = Some(app.resolve(asked.model.as_deref())?);
        let generation = Parameters::from(&asked).check(model.into())?;
        if asked.echo == Some(true) && asked.logprobs.is_some() {
            let message = "echo: the prompt's own probabilities are not told; leave out echo or logprobs";
            return Err(ApiError::field("echo", message));
        }
        let form = Form::new(asked.response_format.take(), &Offer::none())?;
        let prompts = prompts(&asked, model, generation.answers).await?;
        drop(room);
        let guide = generate::guide(app, model, form).await?;
        Ok((asked, prompts, generation, guide))
    })
    .await?;
    let stream = asked.stream.unwrap_or(false);
    relay.check(stream)?;
    generation.steering.guide = guide;
    let (texts, prompts): (Vec<String>, Vec<Prompt>) = prompts.into_iter().unzip();
    let each = generation.answers;
    let identity = identity("cmpl-", generation.sampling.seed, relay.from.as_ref());
    let start = Start { arrived, id, place, identity: identity.clone(), relay };
    let answers = generate::submit(app, model, prompts, &generation, ("prompt", false), start)?;
    let echoed = |index: usize| texts.get(index / each).filter(|_| asked.echo == Some(true)).cloned();
    let voice = TextVoice {
        id: identity.id,
        created: identity.created,
        model: asked.model.unwrap_or_default(),
        include_usage: asked.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        logprobs: generation.logprobs.is_some(),
        echoes: (0..answers.count()).map(|index| echoed(index).unwrap_or_default()).collect(),
    };
    if stream {
        return Ok(stream::respond(answers, voice, app.limits.keep_alive));
    }
    answers.whole(voice).await
}

/// The prompts with their texts.
async fn prompts(asked: &CompletionRequest, model: &Loaded, each: usize) -> Result<Vec<(String, Prompt)>, ApiError> {
    let (count, texts) = match &asked.prompt {
        TextPrompt::Text(text) => (1, text.len()),
        TextPrompt::Texts(texts) => (texts.len(), texts.iter().map(String::len).sum()),
        TextPrompt::Ids(ids) => (usize::from(!ids.is_empty()), 0),
        TextPrompt::ManyIds(all) => (all.len(), 0),
    };
    let most = MOST_PROMPTS.min(model.engine.most_answers() / each).max(1);
    if !(1..=most).contains(&count) {
        let message = format!("prompt: {count} prompts were sent; send 1 to {most}");
        return Err(ApiError::field("prompt", message));
    }
    super::media::fits(texts, model.max_tokens.saturating_mul(count), "prompt")?;
    let (prompt, processor) = (asked.prompt.clone(), Arc::clone(&model.processor));
    let echo = asked.echo.unwrap_or(false);
    generate::blocking(move || {
        let made: Result<Vec<_>, PromptError> = match prompt {
            TextPrompt::Text(text) => of_text(&processor, text).map(|made| vec![made]),
            TextPrompt::Texts(texts) => texts.into_iter().map(|text| of_text(&processor, text)).collect(),
            TextPrompt::Ids(ids) => of_ids(&processor, ids, echo).map(|made| vec![made]),
            TextPrompt::ManyIds(all) => all.into_iter().map(|ids| of_ids(&processor, ids, echo)).collect(),
        };
        made.map_err(|error| ApiError::field("prompt", format!("prompt: {error}")))
    })
    .await
}

fn of_text(processor: &Processor, text: String) -> Result<(String, Prompt), PromptError> {
    let prompt = processor.raw_prompt(&text, &[])?;
    Ok((text, prompt))
}

fn of_ids(processor: &Processor, ids: Vec<u32>, echo: bool) -> Result<(String, Prompt), PromptError> {
    let text = if echo { super::tokenize::text_of(processor, &ids) } else { String::new() };
    Ok((text, processor.prompt_of_ids(ids)?))
}

/// Writes answers as this endpoint does.
struct TextVoice {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    logprobs: bool,
    /// What stands before each answer.
    echoes: Vec<String>,
}

impl TextVoice {
    fn body(&self, choices: Vec<TextChoice>, usage: Option<Usage>) -> CompletionResponse {
        CompletionResponse {
            id: self.id.clone(),
            object: "text_completion".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        }
    }

    fn chunk(&self, index: usize, text: String, logprobs: Option<TextLogprobs>, reason: Option<&str>) -> Event {
        let choice = TextChoice { index: index as u32, text, logprobs, finish_reason: reason.map(Into::into) };
        event(&self.body(vec![choice], None))
    }
}

/// The lists of this endpoint. Answers behind an echo have none.
fn lists(tokens: Vec<SaidToken>) -> TextLogprobs {
    let mut lists = TextLogprobs::default();
    for SaidToken { at, token } in tokens {
        lists.text_offset.push(at);
        lists.token_logprobs.push(token.logprob);
        lists.top_logprobs.push(token.top_logprobs.into_iter().map(|top| (top.token, top.logprob)).collect());
        lists.tokens.push(token.token);
    }
    lists
}

impl Voice for TextVoice {
    fn whole(self, answers: Vec<Whole>, usage: Usage) -> Response {
        let choice = |(index, whole): (usize, Whole)| TextChoice {
            index: index as u32,
            text: self.echoes.get(index).cloned().unwrap_or_default() + &whole.text,
            logprobs: self.logprobs.then(|| lists(whole.tokens)),
            finish_reason: Some(whole.reason.to_owned()),
        };
        let choices = answers.into_iter().enumerate().map(choice).collect();
        Json(self.body(choices, Some(usage))).into_response()
    }

    fn begin(&mut self) -> Vec<Event> {
        let echoes = self.echoes.iter().enumerate().filter(|(_, echo)| !echo.is_empty());
        echoes.map(|(index, echo)| self.chunk(index, echo.clone(), None, None)).collect()
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Event> {
        match piece {
            Piece::Text { text, tokens } => {
                let logprobs = (self.logprobs && !tokens.is_empty()).then(|| lists(tokens));
                vec![self.chunk(index, text, logprobs, None)]
            }
            Piece::Call { .. } => Vec::new(),
            Piece::End { reason, .. } => vec![self.chunk(index, String::new(), None, Some(reason))],
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.include_usage.then(|| event(&self.body(Vec::new(), Some(usage))));
        usage.into_iter().chain([done()]).collect()
    }
}

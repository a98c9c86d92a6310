//! `POST /v1/responses`, without state: answers to a conversation in the newer spelling.

mod input;
mod voice;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use vlm_contract::openai::format::FormatType;
use vlm_contract::openai::responses::{FlatTool, ResponsesRequest, TextFormat};
use vlm_contract::openai::tools::Function;

use super::app::{App, Loaded};
use super::body::Kind;
use super::call::{Call, Form, Offer, Parameters, turns};
use super::error::ApiError;
use super::generate::{self, Entered, Start};
use super::identity::identity;
use super::request_id::RequestId;
use super::{media, stream};
use voice::ResponseVoice;

/// The handler.
pub async fn responses(State(app): State<Arc<App>>, Extension(id): Extension<RequestId>, request: Request) -> Response {
    let (arrived, via) = (Instant::now(), generate::via(&request));
    generate::counted(&app, via, Box::pin(answer(&app, arrived, id, request))).await
}

async fn answer(app: &Arc<App>, arrived: Instant, id: RequestId, request: Request) -> Result<Response, ApiError> {
    let Entered { model, place, request, relay } = generate::enter(app, request, &[Kind::Json]).await?;
    let (asked, call, prompt, guide) = generate::unless_aborted(app, async {
        let (_, bytes, room) = generate::receive(app, request).await?;
        let mut asked: ResponsesRequest = generate::json(bytes).await?;
        let mut call = check(&mut asked, app, model)?;
        let _waiting = app.metrics.in_media_stage();
        let prompt = media::prepare(app, model, &mut call, room).await?;
        let guide = generate::guide(app, model, call.form.clone()).await?;
        Ok((asked, call, prompt, guide))
    })
    .await?;
    relay.check(call.stream)?;
    let identity = identity("resp_", call.generation.sampling.seed, relay.from.as_ref());
    let voice = ResponseVoice::new(asked, &call, &identity);
    let mut generation = call.generation;
    generation.steering.guide = guide;
    let start = Start { arrived, id, place, identity, relay };
    let answers = generate::submit(app, model, vec![prompt], &generation, ("input", call.calls), start)?;
    if call.stream {
        return Ok(stream::respond(answers, voice, app.limits.keep_alive));
    }
    answers.whole(voice).await
}

/// Checks every value; the conversation is taken out of the request.
fn check(asked: &mut ResponsesRequest, app: &App, model: &Loaded) -> Result<Call, ApiError> {
    let name = app.resolve(asked.model.as_deref())?;
    if asked.previous_response_id.is_some() {
        let message = "previous_response_id: responses are not stored; send the whole conversation as `input`";
        return Err(ApiError::field("previous_response_id", message));
    }
    if asked.background == Some(true) {
        let message = "background: responses are not stored; wait for the answer, or stream it";
        return Err(ApiError::field("background", message));
    }
    let generation = Parameters::from(&*asked).check(model.into())?;
    let functions = asked.tools.iter().flatten().map(|tool: &FlatTool| Function {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: tool.parameters.clone(),
    });
    let param = |at| format!("tools[{at}]");
    let offer = Offer::new(functions.collect(), asked.tool_choice.clone(), asked.parallel_tool_calls, param)?;
    let format = asked.text.as_ref().and_then(|text| text.format.clone());
    let form = form(format, &offer)?;
    let messages = input::messages(asked);
    Ok(Call {
        model: name,
        turns: turns("input", messages, Vec::new(), &offer, app)?,
        stream: asked.stream.unwrap_or(false),
        include_usage: true,
        generation,
        form,
        calls: offer.is_some(),
    })
}

fn form(format: Option<TextFormat>, offer: &Offer) -> Result<Form, ApiError> {
    const PARAM: &str = "text.format.schema";
    let Some(format) = format else { return Form::of(None, None, PARAM, offer) };
    if format.r#type == FormatType::JsonSchema && format.schema.is_none() {
        return Err(ApiError::field(PARAM, format!("{PARAM}: missing field `schema`")));
    }
    Form::of(Some(format.r#type), format.schema, PARAM, offer)
}

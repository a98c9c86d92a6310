//! `POST /tokenize` and `POST /detokenize`: texts and conversations to token ids, and ids to text.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use vlm_contract::openai::tokenize::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};

use super::admission::BodyRoom;
use super::app::{App, Loaded};
use super::body::Kind;
use super::call::{Call, Form, Offer, Parameters, turns};
use super::error::ApiError;
use super::generate::{self, Entered};
use super::media;
use crate::processor::Processor;

/// Most bytes of a text that is to be tokenised.
const LONGEST_TEXT: usize = 1 << 20;

/// The handler of `/tokenize`.
pub async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Json<TokenizeResponse>, ApiError> {
    let Entered { model, place: _place, request, .. } = generate::enter(&app, request, &[Kind::Json]).await?;
    generate::unless_aborted(&app, async {
        let (_, bytes, room) = generate::receive(&app, request).await?;
        let asked: TokenizeRequest = generate::json(bytes).await?;
        let name = app.resolve(asked.model.as_deref())?;
        let strings = asked.return_token_strs.unwrap_or(false);
        let tokens = ids(&app, model, name, asked, room).await?;
        let token_strs =
            strings.then(|| tokens.iter().map(|id| model.processor.token(*id).unwrap_or_default()).collect());
        Ok(Json(TokenizeResponse { count: tokens.len(), max_model_len: model.max_tokens, tokens, token_strs }))
    })
    .await
}

async fn ids(
    app: &Arc<App>,
    model: &Loaded,
    name: String,
    asked: TokenizeRequest,
    room: BodyRoom,
) -> Result<Vec<u32>, ApiError> {
    match (asked.prompt, asked.messages) {
        (Some(text), None) if text.len() > LONGEST_TEXT => {
            let message = format!("prompt: {} bytes were sent; send at most {LONGEST_TEXT}", text.len());
            Err(ApiError::field("prompt", message))
        }
        (Some(text), None) => {
            let (processor, begins) = (Arc::clone(&model.processor), asked.add_special_tokens.unwrap_or(true));
            let error = |error| ApiError::field("prompt", format!("prompt: {error}"));
            generate::blocking(move || processor.tokenize(&text, begins).map_err(error)).await
        }
        (None, Some(messages)) => {
            let offer = Offer::of_chat(asked.tools, None, None)?;
            let messages = (0..).zip(messages).map(|(at, message)| (format!("messages[{at}]"), message));
            let mut call = Call {
                model: name,
                turns: turns("messages", messages.collect(), Vec::new(), &offer, app)?,
                stream: false,
                include_usage: false,
                generation: Parameters::default().check(model.into())?,
                form: Form::Text,
                calls: false,
            };
            Ok(media::prepare(app, model, &mut call, room).await?.ids)
        }
        (Some(_), Some(_)) => Err(ApiError::field("prompt", "prompt: send either `prompt` or `messages`, not both")),
        (None, None) => Err(ApiError::field("prompt", "prompt: missing field; send `prompt` or `messages`")),
    }
}

/// The handler of `/detokenize`.
pub async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Json<DetokenizeResponse>, ApiError> {
    let Entered { model, place: _place, request, .. } = generate::enter(&app, request, &[Kind::Json]).await?;
    generate::unless_aborted(&app, async {
        let (_, bytes, _room) = generate::receive(&app, request).await?;
        let asked: DetokenizeRequest = generate::json(bytes).await?;
        app.resolve(asked.model.as_deref())?;
        if let Some(at) = asked.tokens.iter().position(|id| model.processor.token(*id).is_none()) {
            let param = format!("tokens[{at}]");
            let message = format!("{param}: {} is no token id of this model", asked.tokens[at]);
            return Err(ApiError::field(param, message));
        }
        let processor = Arc::clone(&model.processor);
        let prompt = generate::blocking(move || Ok(text_of(&processor, &asked.tokens))).await?;
        Ok(Json(DetokenizeResponse { prompt }))
    })
    .await
}

/// The text of some ids, without special tokens.
pub fn text_of(processor: &Processor, ids: &[u32]) -> String {
    let mut detokenizer = processor.detokenizer();
    let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

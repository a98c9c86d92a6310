//! A request whose every value is in its range: what the rest of the server works with.

mod parameters;
mod tools;
mod turns;

use std::path::PathBuf;

use bytes::Bytes;
use vlm_contract::openai::chat::ChatRequest;

pub use parameters::{AnswerLimit, Generation, Parameters};
pub use tools::{Form, Offer};
pub use turns::{Turn, TurnPart, turns};

use super::app::{App, Loaded};
use super::error::ApiError;
use crate::image::TileBudget;

/// A picture as it arrived.
#[derive(Clone, Debug)]
pub enum Picture {
    /// A `data:` URL.
    DataUrl(String),
    /// A file of a form.
    File(Bytes),
    /// On another server.
    Web(reqwest::Url),
    /// On this machine.
    Path(PathBuf),
}

/// A picture and the field that it came in.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its field, for errors.
    pub param: String,
    /// The picture.
    pub picture: Picture,
    /// How much of it is looked at.
    pub detail: TileBudget,
}

/// A checked request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name under which it is answered.
    pub model: String,
    /// The conversation; at least one message.
    pub turns: Vec<Turn>,
    /// Answer in events.
    pub stream: bool,
    /// Send the usage at the end of the stream.
    pub include_usage: bool,
    /// How the answer is generated.
    pub generation: Generation,
    /// What form it must have.
    pub form: Form,
    /// Whether calls of functions in it are taken out of its text.
    pub calls: bool,
}

impl Call {
    /// Checks every value of `request`; `uploads` go before the text of the last user message.
    pub fn check(request: ChatRequest, uploads: Vec<Upload>, app: &App, model: Limits) -> Result<Self, ApiError> {
        let name = app.resolve(request.model.as_deref())?;
        let generation = Parameters::from(&request).check(model)?;
        let offer = Offer::of_chat(request.tools, request.tool_choice, request.parallel_tool_calls)?;
        let form = Form::new(request.response_format, &offer)?;
        let messages = (0..).zip(request.messages).map(|(at, message)| (format!("messages[{at}]"), message));
        let turns = turns("messages", messages.collect(), uploads, &offer, app)?;
        Ok(Self {
            model: name,
            turns,
            stream: request.stream.unwrap_or(false),
            include_usage: request.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
            generation,
            form,
            calls: offer.is_some(),
        })
    }

    /// Whether any picture has to be decoded.
    pub fn has_images(&self) -> bool {
        let mut parts = self.turns.iter().flat_map(|turn| &turn.parts);
        parts.any(|part| matches!(part, TurnPart::Image(_)))
    }

    /// Bytes of text in all messages.
    pub fn text_bytes(&self) -> usize {
        let parts = self.turns.iter().flat_map(|turn| &turn.parts);
        parts.map(|part| if let TurnPart::Text(text) = part { text.len() } else { 0 }).sum()
    }
}

/// What the model has to say on the values of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sampling where the request does not say.
    pub defaults: super::defaults::SamplingDefaults,
    /// Most answers that can be accepted together.
    pub answers: usize,
}

impl From<&Loaded> for Limits {
    fn from(model: &Loaded) -> Self {
        Self { defaults: model.defaults, answers: model.engine.most_answers() }
    }
}

#[cfg(test)]
mod tests;

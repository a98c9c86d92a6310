//! The events of a streamed response.

use serde::{Deserialize, Serialize};

use super::{OutputItem, OutputPart, ResponseBody};
use crate::openai::chat::TokenLogprob;

/// An event with its place in the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NumberedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// How many came before.
    pub sequence_number: u64,
}

/// What happened to a response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
#[expect(missing_docs, reason = "fields that name response, item or part are alike in all events")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Event {
    /// The request was accepted.
    #[serde(rename = "response.created")]
    Created { response: Box<ResponseBody> },
    /// Work on it began.
    #[serde(rename = "response.in_progress")]
    InProgress { response: Box<ResponseBody> },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: OutputItem },
    /// A part of a message begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    /// More text of a part.
    #[serde(rename = "response.output_text.delta")]
    TextDelta { item_id: String, output_index: usize, content_index: usize, delta: String, logprobs: Vec<TokenLogprob> },
    /// The text of a part is whole.
    #[serde(rename = "response.output_text.done")]
    TextDone { item_id: String, output_index: usize, content_index: usize, text: String, logprobs: Vec<TokenLogprob> },
    /// A part is whole.
    #[serde(rename = "response.content_part.done")]
    PartDone { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    /// More arguments of a call.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    /// The arguments of a call are whole.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { item_id: String, output_index: usize, name: String, arguments: String },
    /// An item is whole.
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: OutputItem },
    /// The response is whole.
    #[serde(rename = "response.completed")]
    Completed { response: Box<ResponseBody> },
    /// The response was cut.
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Box<ResponseBody> },
    /// The response cannot be continued.
    #[serde(rename = "response.failed")]
    Failed { response: Box<ResponseBody> },
}

impl Event {
    /// Its `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
        }
    }
}

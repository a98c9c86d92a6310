//! Writes an answer as this endpoint does: one body, or numbered events, each item begun, filled and closed.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use vlm_contract::continuation::Identity;
use vlm_contract::openai::format::FormatType;
use vlm_contract::openai::responses::{
    Event, FunctionCallItem, IncompleteDetails, InputTokensDetails, MessageItem, NumberedEvent, OutputItem, OutputPart,
    OutputTokensDetails, ResponseBody, ResponseText, ResponseUsage, ResponsesRequest, Status, TextFormat,
};
use vlm_contract::openai::tools::{ToolChoice, ToolMode};
use vlm_contract::openai::usage::Usage;

use super::super::answer::Piece;
use super::super::answers::{Voice, Whole};
use super::super::call::Call;
use super::super::error::ApiError;
use super::super::events::{self, Event as SentEvent};
use super::super::identity::item_name;

/// Why an answer is not complete.
const CUT: &str = "length";

/// One response.
pub struct ResponseVoice {
    body: ResponseBody,
    /// Events sent.
    sent: u64,
    /// Id and text of the message that is open.
    open: Option<(String, String)>,
    cut: bool,
}

impl ResponseVoice {
    /// Of a request that was checked to be `call`.
    pub fn new(asked: ResponsesRequest, call: &Call, identity: &Identity) -> Self {
        let plain = || TextFormat { r#type: FormatType::Text, name: None, schema: None, strict: None };
        let tool_choice = match asked.tool_choice.unwrap_or(ToolChoice::Mode(ToolMode::Auto)) {
            ToolChoice::Mode(mode) => json!(mode),
            ToolChoice::Function(named) => json!({"type": "function", "name": named.function.name}),
        };
        let body = ResponseBody {
            id: identity.id.clone(),
            object: "response".into(),
            created_at: identity.created,
            status: Status::InProgress,
            error: None,
            incomplete_details: None,
            instructions: asked.instructions,
            max_output_tokens: asked.max_output_tokens,
            metadata: asked.metadata.unwrap_or_default(),
            model: call.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: asked.parallel_tool_calls.unwrap_or(true),
            previous_response_id: None,
            store: false,
            temperature: call.generation.sampling.temperature,
            top_p: call.generation.sampling.top_p,
            text: ResponseText { format: asked.text.and_then(|text| text.format).unwrap_or_else(plain) },
            tool_choice,
            tools: asked.tools.unwrap_or_default(),
            truncation: "disabled".into(),
            usage: None,
        };
        Self { body, sent: 0, open: None, cut: false }
    }

    fn event(&mut self, event: Event) -> SentEvent {
        let name = event.name();
        let numbered = NumberedEvent { event, sequence_number: self.sent };
        self.sent += 1;
        events::event(&numbered).named(name)
    }

    /// A name in the item that comes next.
    fn next_name(&self, kind: &str) -> String {
        item_name(&self.body.id, kind, 0, self.body.output.len())
    }

    /// The response as it is now.
    fn now(&self) -> Box<ResponseBody> {
        Box::new(self.body.clone())
    }

    /// Begins a message, unless one is open.
    fn open(&mut self) -> Vec<SentEvent> {
        if self.open.is_some() {
            return Vec::new();
        }
        let (id, output_index) = (self.next_name("msg"), self.body.output.len());
        let item = message(id.clone(), Status::InProgress, Vec::new());
        let added = Event::PartAdded { item_id: id.clone(), output_index, content_index: 0, part: part(String::new()) };
        self.open = Some((id, String::new()));
        vec![self.event(Event::ItemAdded { output_index, item }), self.event(added)]
    }

    /// Closes the message that is open, if one is.
    fn close(&mut self) -> Vec<SentEvent> {
        let Some((id, text)) = self.open.take() else { return Vec::new() };
        let (output_index, content_index) = (self.body.output.len(), 0);
        let status = if self.cut { Status::Incomplete } else { Status::Completed };
        let item = message(id.clone(), status, vec![part(text.clone())]);
        self.body.output.push(item.clone());
        let done = Event::TextDone {
            item_id: id.clone(),
            output_index,
            content_index,
            text: text.clone(),
            logprobs: Vec::new(),
        };
        let events = [
            done,
            Event::PartDone { item_id: id, output_index, content_index, part: part(text) },
            Event::ItemDone { output_index, item },
        ];
        events.into_iter().map(|event| self.event(event)).collect()
    }

    fn text(&mut self, delta: String) -> Vec<SentEvent> {
        let mut events = self.open();
        let Some((id, text)) = &mut self.open else { return events };
        text.push_str(&delta);
        let item_id = id.clone();
        let output_index = self.body.output.len();
        let event = Event::TextDelta { item_id, output_index, content_index: 0, delta, logprobs: Vec::new() };
        events.push(self.event(event));
        events
    }

    fn call(&mut self, name: String, arguments: String) -> Vec<SentEvent> {
        let mut events = self.close();
        let output_index = self.body.output.len();
        let (item_id, call_id) = (self.next_name("fc"), self.next_name("call"));
        let (item, whole) = call_item(item_id.clone(), call_id, name.clone(), arguments.clone());
        let more = [
            Event::ItemAdded { output_index, item },
            Event::ArgumentsDelta { item_id: item_id.clone(), output_index, delta: arguments.clone() },
            Event::ArgumentsDone { item_id, output_index, name, arguments },
            Event::ItemDone { output_index, item: OutputItem::FunctionCall(whole.clone()) },
        ];
        self.body.output.push(OutputItem::FunctionCall(whole));
        events.extend(more.into_iter().map(|event| self.event(event)));
        events
    }

    /// The body is complete, cut or not.
    fn finish(&mut self, usage: Usage) {
        self.body.usage = Some(ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: usage.prompt_tokens_details.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: usage.total_tokens,
        });
        self.body.status = if self.cut { Status::Incomplete } else { Status::Completed };
        self.body.incomplete_details = self.cut.then(|| IncompleteDetails { reason: "max_output_tokens".into() });
    }
}

fn part(text: String) -> OutputPart {
    OutputPart::OutputText { text, annotations: Vec::new(), logprobs: Vec::new() }
}

fn message(id: String, status: Status, content: Vec<OutputPart>) -> OutputItem {
    OutputItem::Message(MessageItem { id, status, role: "assistant".into(), content })
}

/// A call as it begins, and as it is whole.
fn call_item(id: String, call_id: String, name: String, arguments: String) -> (OutputItem, FunctionCallItem) {
    let whole = FunctionCallItem { id, status: Status::Completed, call_id, name, arguments };
    let begun = FunctionCallItem { status: Status::InProgress, arguments: String::new(), ..whole.clone() };
    (OutputItem::FunctionCall(begun), whole)
}

impl Voice for ResponseVoice {
    fn whole(mut self, answers: Vec<Whole>, usage: Usage) -> Response {
        let whole = answers.into_iter().next().unwrap_or_default();
        self.cut = whole.reason == CUT;
        if whole.calls.is_empty() || !whole.text.trim().is_empty() {
            self.text(whole.text);
            self.close();
        }
        for (name, arguments) in whole.calls {
            self.call(name, arguments);
        }
        self.finish(usage);
        Json(self.body).into_response()
    }

    fn begin(&mut self) -> Vec<SentEvent> {
        let (created, begun) = (self.now(), self.now());
        vec![self.event(Event::Created { response: created }), self.event(Event::InProgress { response: begun })]
    }

    fn piece(&mut self, _: usize, piece: Piece) -> Vec<SentEvent> {
        match piece {
            Piece::Text { text, .. } if text.is_empty() => Vec::new(),
            Piece::Text { text, .. } => self.text(text),
            Piece::Call { name, arguments } => self.call(name, arguments),
            Piece::End { reason, .. } => {
                self.cut = reason == CUT;
                let mut events = if self.body.output.is_empty() { self.open() } else { Vec::new() };
                events.extend(self.close());
                events
            }
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<SentEvent> {
        self.finish(usage);
        let response = self.now();
        let event = if self.cut { Event::Incomplete { response } } else { Event::Completed { response } };
        vec![self.event(event)]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<SentEvent> {
        self.body.status = Status::Failed;
        self.body.error = Some(error.body().error);
        let response = self.now();
        // The clients turn an error body into an error of theirs; those who read events see the other.
        vec![self.event(Event::Failed { response }), events::event(&error.body()).named("error")]
    }
}

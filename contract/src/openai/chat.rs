//! `POST /v1/chat/completions`: request, messages, response and stream chunk.

mod message;
mod request;
mod response;

pub use message::{Content, Detail, ImageUrl, Message, Part, Role};
pub use request::{ChatRequest, Stop, StreamOptions};
pub use response::{
    AnswerMessage, ChatChunk, ChatResponse, Choice, ChoiceLogprobs, ChunkChoice, Delta, TokenLogprob, TopLogprob,
};

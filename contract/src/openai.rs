//! Bodies of the `OpenAI` API as its official clients send and expect them.

pub mod chat;
pub mod error;
pub mod models;

//! Bodies of the `OpenAI` API as its official clients send and expect them.
//!
//! Requests are read by these types and refused by field name where a type is wrong; unknown
//! fields are ignored, as clients send many. Fields whose behaviour does not exist are absent.

pub mod chat;
pub mod completions;
pub mod error;
pub mod format;
pub mod models;
pub mod one_or_many;
pub mod responses;
pub mod tokenize;
pub mod tools;
pub mod usage;

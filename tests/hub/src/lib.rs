//! A hub of models for tests: the part of the Hugging Face hub's API that this project speaks, over real HTTP, with
//! the storage on another port as the real one has it on another host. It counts what it is asked and misbehaves on
//! demand.
//!
//! # Layout
//! - [`repository`]: what is published.
//! - [`fault`]: how an answer goes wrong.
//! - [`server`]: addresses and answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod fault;
pub mod repository;
pub mod server;

pub use fault::Fault;
pub use repository::Repository;
pub use server::{Asked, TestHub};

//! The core against reference tensors, against itself, and against broken checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod batching;
mod broken;
mod cases;
mod fixture;
mod layouts;
mod parity;
mod prompts;
mod streams;
mod tiny_llava;

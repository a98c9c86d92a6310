//! The core against reference tensors, against itself, and against broken checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod batching;
mod block_formats;
mod broken;
mod cases;
mod fixture;
mod footprint;
mod layouts;
mod paging;
mod parity;
mod pickles;
mod pitfalls;
mod precision;
mod prompts;
mod second_reference;
mod streams;
mod tiny_models;

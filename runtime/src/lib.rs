//! The model server. Knows nothing of Kubernetes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod checkpoint;
pub mod engine;
pub mod image;
pub mod processor;
pub mod prompt;
pub mod tokenizer;

//! Where weights live: what a checkpoint is made of, told without its weights, and how it gets onto a disk.
//! Knows neither Kubernetes nor tensors.
//!
//! # Layout
//! - [`hf`]: the Hugging Face hub or a mirror of it: commits, lists of files, parts of files.
//! - [`volume`]: the same facts of a directory.
//! - [`facts`]: what both tell of a checkpoint.
//! - [`fetch`]: a repository into a directory: resumed, checked, published whole or not at all.
//! - [`index`], [`header`], [`needed`]: which files have the weights, what lies in them, which a checkpoint needs.
//! - [`token`], [`patience`], [`error`]: what asking takes, and how it ends.
//!
//! `hf-hub` is not used: it brings the client of another storage along, compares no checksum of what it downloads,
//! bounds no answer, and follows redirects as its HTTP client is set up elsewhere. What is needed of the hub's API
//! are three addresses.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod error;
pub mod facts;
pub mod fetch;
pub mod header;
pub mod hf;
pub mod index;
pub mod needed;
pub mod patience;
pub mod token;
pub mod volume;

mod digest;

pub use error::HubError;
pub use hf::{Hub, Settings};
pub use token::Token;

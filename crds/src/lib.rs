//! The Kubernetes API types of the operator, and the `CustomResourceDefinition` made of them.
//! No client, no behaviour beyond defaults and parsing.
//!
//! # Layout
//! - [`vision_model`]: the resource and its spec; [`scaling`], [`rollout`] and [`pod`] are parts of it.
//! - [`names`]: which model a name means.
//! - [`status`]: what the operator reports; the only lists of conditions and reasons.
//! - [`mod@definition`]: the finished `CustomResourceDefinition`.

#![allow(clippy::doc_markdown, reason = "these texts are what `kubectl explain` shows, backticks and all")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod definition;
pub mod names;
pub mod pod;
pub mod rollout;
pub mod scaling;
pub mod status;
pub mod vision_model;

mod bounded;

pub use definition::definition;
pub use vision_model::{VisionModel, VisionModelSpec};

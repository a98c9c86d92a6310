//! `kubectl vlm`: what a `VisionModel` needs and costs before it is applied, what it waits for afterwards, and its logs.
//!
//! # Layout
//! - [`args`]: the command line.
//! - [`manifest`]: the `VisionModels` of a file.
//! - [`checkpoint`]: what is known of a checkpoint; the one place that reads any.
//! - [`plan`]: fit, GPU types and cost, as a table or as JSON. Needs no cluster.
//! - [`status`]: a `VisionModel` of a cluster in words; [`logs`]: what its pods say; [`cluster`]: the way there.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod checkpoint;
pub mod cluster;
pub mod logs;
pub mod manifest;
pub mod plan;
pub mod status;

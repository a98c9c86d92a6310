//! The model server. Knows nothing of Kubernetes.
//!
//! # Layout
//! [`args`] → [`commands`] → [`server`] (HTTP) → [`processor`] ([`image`], [`prompt`],
//! [`tokenizer`]) → [`engine`] ([`guide`]) → [`models`] over [`ops`] on a [`device`], over one opened [`checkpoint`]; [`metrics`],
//! [`telemetry`] and [`diagnose`] say what happens; [`tolerance`] says how near the reference is near enough.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod checkpoint;
pub mod commands;
pub mod device;
pub mod diagnose;
pub mod engine;
pub mod guide;
pub mod image;
pub mod metrics;
pub mod models;
pub mod ops;
pub mod precision;
pub mod processor;
pub mod prompt;
pub mod server;
pub mod telemetry;
pub mod tokenizer;
pub mod tolerance;

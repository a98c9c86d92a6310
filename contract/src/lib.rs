//! What two programs must spell alike: `OpenAI` wire types, ports, flags, metric names, addresses of
//! models, and the table of exit codes with their reasons. Holds no behaviour beyond parsing and printing these.
//!
//! # Layout
//! - [`openai`]: request, response and error bodies of the chat and models endpoints.
//! - [`diagnosis`]: why a server could not start: exit code ↔ reason ↔ sentence.
//! - [`uri`]: where the weights of a model are.
//! - [`continuation`]: moving a stream to another model server.
//! - [`routable`]: whether a model server can be reached.
//! - [`metrics`], [`ports`], [`flags`], [`headers`], [`labels`]: names.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod continuation;
pub mod diagnosis;
pub mod flags;
pub mod headers;
pub mod labels;
pub mod metrics;
pub mod openai;
pub mod ports;
pub mod routable;
pub mod uri;

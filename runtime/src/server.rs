//! The HTTP side: from a request's bytes to the engine, and from its tokens to the answer.
//!
//! # Layout
//! - [`router`]: routes and what surrounds every request ([`request_id`], [`head`], [`cors`], [`auth`]);
//!   [`listen`]: connections; [`lifecycle`]: loading, ready, draining.
//! - [`chat`], [`completions`], [`responses`]: requests for answers, which go the way of [`generate`]: [`admission`] →
//!   [`body`] ([`form`]) → [`parse`] → [`call`] → [`media`] ([`sources`], [`pictures`]) → engine → [`answers`], each an
//!   [`answer`] ([`stop`], [`calls`], [`said_tokens`]) → [`stream`] of [`events`] or one body.
//! - [`continuation`]: the same for a stream that another server began; [`identity`]: which stream it is.
//! - [`error`]: the only map from error to HTTP status and body.
//! - [`models`], [`health`], [`tokenize`], [`openapi`]: the small endpoints.

pub mod admission;
pub mod answer;
pub mod answers;
pub mod app;
pub mod auth;
pub mod body;
pub mod call;
pub mod calls;
pub mod chat;
pub mod completions;
pub mod continuation;
pub mod cors;
pub mod data_url;
pub mod defaults;
pub mod error;
pub mod events;
pub mod form;
pub mod generate;
pub mod head;
pub mod health;
pub mod identity;
pub mod lifecycle;
pub mod listen;
pub mod media;
pub mod models;
pub mod openapi;
pub mod parse;
pub mod pictures;
pub mod request_id;
pub mod responses;
pub mod router;
pub mod said_tokens;
pub mod sources;
pub mod stop;
pub mod stream;
pub mod tokenize;

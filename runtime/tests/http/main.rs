//! The real binary on a tiny real checkpoint, spoken to by a real HTTP client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod bad_input;
mod connections;
mod continuation;
mod cutting;
mod drain;
mod fairness;
mod fetch;
mod form;
mod formats;
mod fuzz;
mod hostile;
mod http2;
mod leaving;
mod load;
mod loading;
mod nonsense;
mod parameters;
mod pictures;
#[path = "../support/random_llava.rs"]
mod random_llava;
mod server;
mod shape;
mod start;
mod tiles;
mod tls;

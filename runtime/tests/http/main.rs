//! The real binary on a tiny real checkpoint, spoken to by a real HTTP client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod bad_input;
mod connections;
mod continuation;
mod drain;
mod fairness;
mod fetch;
mod form;
mod fuzz;
mod hostile;
mod load;
mod loading;
mod nonsense;
mod parameters;
mod pictures;
mod server;
mod shape;
mod start;
mod tiles;

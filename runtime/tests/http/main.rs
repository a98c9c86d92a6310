//! The real binary on a tiny real checkpoint, spoken to by a real HTTP client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod drain;
mod form;
mod fuzz;
mod load;
mod nonsense;
mod parameters;
mod server;
mod shape;
mod start;
mod tiles;

//! The commands beside `serve`, as a person runs them: the real binary on the reference cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;
mod case;
mod corrupted;
mod hub;
mod mistakes;
mod trace;
mod verify;

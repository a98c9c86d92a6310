//! The commands that prove a conversion, as a person runs them: the real binary on the reference cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod case;
mod corrupted;
mod mistakes;
mod trace;
mod verify;

//! The CUDA halves of all ops against their CPU halves, and what is said of GPUs that cannot be used. Where there is no
//! GPU, the tests that need one say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attention;
mod decoder;
mod diagnosis;
mod engine;
mod gpu;
mod linear;
mod lost;
mod models;
mod quantised;
mod rows;
mod tiny;

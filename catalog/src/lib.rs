//! Facts about vision-language models: architectures, number formats, and what a sequence costs in memory.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod architecture;
pub mod checkpoint;
pub mod inspection;
pub mod quantization;

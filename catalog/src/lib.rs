//! Facts about vision-language models and the devices that serve them: architectures, number formats, sizes, what
//! fits where, and GPU types.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod architecture;
pub mod checkpoint;
pub mod footprint;
pub mod gpu;
pub mod inspection;
pub mod kv_cache;
pub mod quantity;
pub mod quantization;

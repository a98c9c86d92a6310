//! What the tests that see both sides share: tools, a client, namespaces of their own, waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod hub;
#[cfg(feature = "cluster")]
pub mod idle;
#[cfg(feature = "cluster")]
pub mod space;
pub mod tools;

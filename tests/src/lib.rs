//! What the tests that see both sides share: tools, a client, namespaces of their own, waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

#[cfg(feature = "cluster")]
pub mod burst;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod edits;
#[cfg(feature = "cluster")]
pub mod fresh;
#[cfg(feature = "cluster")]
pub mod hub;
#[cfg(feature = "cluster")]
pub mod idle;
#[cfg(feature = "cluster")]
pub mod impossible;
pub mod kstatus;
#[cfg(feature = "cluster")]
pub mod latency;
#[cfg(feature = "cluster")]
pub mod load;
#[cfg(feature = "cluster")]
pub mod made_up;
#[cfg(feature = "cluster")]
pub mod outage;
#[cfg(feature = "cluster")]
pub mod provoked;
#[cfg(feature = "cluster")]
pub mod space;
pub mod streamed;
#[cfg(feature = "cluster")]
pub mod streams;
pub mod tools;
#[cfg(feature = "cluster")]
pub mod wake;
#[cfg(feature = "cluster")]
pub mod watch;
#[cfg(feature = "cluster")]
pub mod written;

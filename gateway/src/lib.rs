//! The gateway: one address for every `VisionModel`.
//!
//! ```text
//!  VisionModels, EndpointSlices ─► routes ─┐                      ┌─► wake ─► status.wake of the VisionModel
//!                                          ▼                      │
//!  client ─► server ─► bodies ─► request ─► desk (hold · balance) ┤
//!              ▲                                                  ▼
//!              └──────────────── proxy ◄────────────────────── replica
//! ```
//!
//! A request is read whole, once. Its body tells the model and the affinity; the desk gives it a replica at once, lets it
//! wait, or refuses it. The proxy asks the replica and passes the answer on; what fails before the first byte goes back
//! to the desk, to the place that it had. What fails later goes on elsewhere.
//!
//! # Guarantees
//! - The body reaches the replica unmodified; of the headers, only those that a replica reads.
//! - What waits is bounded in count, bytes and time, and what is in memory in bytes. Places are given oldest first,
//!   but for a while (a second, or twice the usual wait) to one whose pictures the free replica has.
//! - A replica is given no more than it computes and may queue, so a model that wakes is not stormed.
//! - A client that goes away frees its place at once, waiting or answered.
//!
//! # Layout
//! - [`server`]: connections, routes, request ids, admin endpoints. [`error`]: the only map from error to HTTP.
//! - [`bodies`], [`request`]: a body in memory, and what is read of it.
//! - [`routes`]: what the cluster says of the models. Effects: reads.
//! - [`desk`]: every replica and every queue, under one lock; [`hold`] and [`balance`] are its pure parts.
//! - [`proxy`]: one request to its answer's end; [`sse`] cuts streams at events; [`migrate`] moves streams.
//! - [`routable`]: asks a new replica about a picture, before users do.
//! - [`wake`]: asks for a replica. Effects: one write.
//! - [`run`], [`drain`], [`app`], [`args`], [`metrics`], [`telemetry`]: the process around it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp))]

pub mod app;
pub mod args;
pub mod balance;
pub mod bodies;
pub mod desk;
pub mod drain;
pub mod error;
pub mod hold;
pub mod metrics;
pub mod migrate;
pub mod proxy;
pub mod request;
pub mod routable;
pub mod routes;
pub mod run;
pub mod server;
pub mod sse;
pub mod telemetry;
pub mod wake;

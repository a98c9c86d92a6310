//! The operator: makes the cluster match each `VisionModel`.
//!
//! ```text
//!  watches ──► observe ─► plan ─► build ─► apply ─► status      (controller: one reconcile)
//!                          ▲
//!  pods, Prometheus ─► demand ─► plan::scale ─► table ─► wake   (autoscaler: every 2 s)
//! ```
//!
//! # Layout
//! - [`controller`]: wiring and the reconcile.
//! - [`autoscaler`]: the loop that follows the load, and the table of replicas.
//! - [`observe`], [`demand`], [`revision`]: read the cluster, the load and the hub.
//! - [`inspect`]: has pods look at checkpoints where the operator may not.
//! - [`plan`], [`build`], [`status`]: pure, and hold most tests.
//! - [`apply`]: writes the children.
//! - [`routable`]: has gateways ask new pods, and writes their condition. [`names`]: which model a name means.
//! - [`leader`], [`admin`], [`metrics`], [`telemetry`], [`args`]: the process around it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp))]

pub mod admin;
pub mod apply;
pub mod args;
pub mod autoscaler;
pub mod build;
pub mod context;
pub mod controller;
pub mod demand;
pub mod inspect;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod revision;
pub mod routable;
pub mod run;
pub mod status;
pub mod telemetry;

mod fingerprint;

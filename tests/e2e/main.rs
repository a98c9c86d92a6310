//! The product on a real cluster: real API server, scheduler, controllers, kubelet and images.
//!
//! `make test` runs this inside a cluster of its own (tests/cluster). One file per promise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod clients;
mod failures;
mod fight;
mod fit;
mod gateway;
mod gpus;
mod health;
mod idle;
mod leader;
mod lifecycle;
mod names;
mod no_gpu;
mod provocations;
mod recovery;
mod routable;
mod scaling;
mod slices;
mod streams;
mod weights;
mod zero;

use vlm_tests::load;

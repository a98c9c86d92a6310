//! Tests that change the operator's installation, and so need the cluster for themselves. They run
//! one at a time, in the order of their names, after all others on the same cluster (tests/e2e).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod gateway;
mod no_gateway;
mod outage;
mod upgrade;
mod watched;

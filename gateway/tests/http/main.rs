//! The gateway over real connections, before real HTTP servers in place of replicas.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod answers;
mod broken;
mod continuing;
mod gateway;
mod h2c;
mod holding;
mod hostile;
mod migration;
mod passing;
mod replica;
mod retries;
mod routable;
mod rubbish;
mod slow;

//! Replicas that stand in the endpoints and take no requests yet.

use std::net::SocketAddr;

use super::Desk;
use crate::routes::ModelId;

/// What is known of a replica that may be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// No such replica of a model that is served here.
    Unknown,
    /// It takes requests, or is on its way out.
    None,
    /// It listens here and takes none yet.
    At(SocketAddr),
}

impl Desk {
    /// Looks a replica up.
    pub fn newcomer(&self, model: &ModelId, pod: &str) -> Newcomer {
        let state = self.lock();
        let endpoints = state.endpoints.get(model).filter(|_| state.lines.contains_key(model));
        let leaves = state.leaving.get(model).is_some_and(|pods| pods.contains_key(pod));
        match endpoints.into_iter().flatten().find(|endpoint| endpoint.pod == pod) {
            None => Newcomer::Unknown,
            Some(endpoint) if endpoint.ready || leaves => Newcomer::None,
            Some(endpoint) => Newcomer::At(endpoint.address),
        }
    }
}

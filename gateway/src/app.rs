//! What every handler shares.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};

use crate::{
    bodies::Bodies,
    desk::Desk,
    drain::Life,
    error::GatewayError,
    metrics::Metrics,
    migrate::Signer,
    proxy::upstream::Upstream,
    routable::Probes,
    routes::{ModelId, Routes},
};

/// State of the gateway.
pub struct App {
    /// The models.
    pub routes: Arc<Routes>,
    /// Their replicas and queues.
    pub desk: Arc<Desk>,
    /// Asks replicas.
    pub upstream: Upstream,
    /// Room for request bodies.
    pub bodies: Bodies,
    /// All metrics.
    pub metrics: Metrics,
    /// Replicas that are being asked whether they answer.
    pub probes: Probes,
    /// Between start and exit.
    pub life: Life,
    /// Time between two signs of life to a streaming client that waits.
    pub heartbeat: Duration,
    /// A replica whose stream says nothing for longer than this is gone, though its connection is not.
    pub silence: Duration,
    /// Signs what lets a stream go on at another replica.
    pub signer: Signer,
}

impl App {
    /// Counts a request that reached no model because of what it is.
    pub fn invalid(&self, error: GatewayError) -> Response {
        self.metrics.invalid(error.code());
        error.into_response()
    }

    /// Counts a request that got no replica.
    pub fn note_refused(&self, model: &ModelId, error: &GatewayError) {
        if let Some(why) = error.refused() {
            self.metrics.refused(model, why);
        }
    }
}

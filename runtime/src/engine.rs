//! The engine: a handle that any thread may hold, and one thread that owns model and KV cache.

mod request;

use std::sync::Arc;

pub use request::{
    EngineOptions, Event, FinishReason, Request, Sampling, Snapshot, SubmitError, TokenStream,
};

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Handle of the engine thread.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<()>,
}

impl Engine {
    /// Loads the weights, warms up and starts the thread. Blocks until the engine can serve.
    pub fn start(checkpoint: &Checkpoint, options: EngineOptions) -> Result<Self, CheckpointError> {
        let _ = (checkpoint, options, TokenStream::new());
        todo!()
    }

    /// Accepts a request or says why not. Never blocks on the model.
    pub fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let _ = request;
        todo!()
    }

    /// What runs and waits now.
    pub fn snapshot(&self) -> Snapshot {
        let _ = &self.shared;
        todo!()
    }

    /// Refuses new requests and finishes the accepted ones.
    pub fn drain(&self) {
        todo!()
    }

    /// Resolves when nothing runs or waits.
    pub async fn idle(&self) {
        std::future::ready(()).await;
        todo!()
    }
}

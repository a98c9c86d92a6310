//! Open connections, and those that were one too many.

use prometheus::{IntCounter, IntGauge};
use vlm_contract::metrics as names;

/// Counts connections.
#[derive(Clone, Debug)]
pub struct Connections {
    pub(super) open: IntGauge,
    pub(super) refused: IntCounter,
}

impl Connections {
    /// New counts. Fails only by a wrong name.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            open: IntGauge::new(names::CONNECTIONS, "Open connections")?,
            refused: IntCounter::new(
                names::CONNECTIONS_REFUSED,
                "Connections that were closed at once because there were too many",
            )?,
        })
    }

    /// A connection is open until the guard is dropped.
    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection was one too many.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

/// An open connection.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

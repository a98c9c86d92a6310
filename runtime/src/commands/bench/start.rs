//! How long each part of a start takes.

use std::time::Instant;

use serde::Serialize;

use crate::models::LoadTimes;

/// From the opening of the device to an engine that answers, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StartSeconds {
    /// The driver, its libraries and a context.
    pub device: f64,
    /// The project's kernels.
    pub code: f64,
    /// The checkpoint's descriptions, and the maps of its files.
    pub checkpoint: f64,
    /// The weights out of their files, in the number format in which they are held; where they are drawn, making them.
    pub read: f64,
    /// The weights into blocks.
    pub quantise: f64,
    /// The weights into the memory of the device.
    pub upload: f64,
    /// The KV cache, and the first step of everything.
    pub warm_up: f64,
}

impl StartSeconds {
    /// With a load of weights.
    pub fn with(self, times: LoadTimes) -> Self {
        let [read, quantise, upload] = [times.read, times.quantise, times.upload].map(|time| time.as_secs_f64());
        Self { read, quantise, upload, ..self }
    }

    /// All parts.
    pub fn sum(self) -> f64 {
        let Self { device, code, checkpoint, read, quantise, upload, warm_up } = self;
        device + code + checkpoint + read + quantise + upload + warm_up
    }
}

/// What `work` gives, and the seconds that it took.
pub fn seconds<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, f64), E> {
    let begun = Instant::now();
    let done = work()?;
    Ok((done, begun.elapsed().as_secs_f64()))
}

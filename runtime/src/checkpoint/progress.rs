//! How far a load has come, for those who wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of tensors that were read and that there are. Shared between the load and those who ask.
#[derive(Debug, Default)]
pub struct LoadProgress {
    total: AtomicU64,
    read: AtomicU64,
}

impl LoadProgress {
    /// Bytes read, and bytes in all; `None` before the checkpoint is open.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.read.load(Ordering::Relaxed).min(total), total))
    }

    /// There are so many bytes.
    pub fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many more are read.
    pub fn add(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

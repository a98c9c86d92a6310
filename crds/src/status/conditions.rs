//! Types of conditions. This is the only list.

/// This generation is rolled out and answers.
pub const READY: &str = "Ready";
/// The operator or Kubernetes is still at work on this generation.
pub const RECONCILING: &str = "Reconciling";
/// Nothing more happens until a person acts.
pub const STALLED: &str = "Stalled";
/// A request sent now gets an answer.
pub const AVAILABLE: &str = "Available";
/// One replica fits the memory that it has. Absent where no limit says how much that is.
pub const FITS_GPU: &str = "FitsGPU";
/// The autoscaler sees the load. Absent while the autoscaler is off.
pub const METRICS_AVAILABLE: &str = "MetricsAvailable";
/// The load asks for more replicas than allowed. Absent while the autoscaler is off.
pub const SCALING_LIMITED: &str = "ScalingLimited";

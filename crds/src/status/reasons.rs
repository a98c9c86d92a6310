//! Reasons of conditions, failures and decisions. This is the only list; those of exit codes come
//! from the contract with the runtime.

use vlm_contract::diagnosis::Cause;

/// Why something cannot start, most actionable first: the order in which one of several is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// The API server refuses an object that the spec asks for.
    SpecRefused,
    /// An object of the needed name exists and belongs to somebody else.
    NameTaken,
    /// The catalogue of GPU types does not have the one of the spec.
    GpuTypeUnknown,
    /// The claim does not exist.
    VolumeNotFound,
    /// The checkpoint is not where the spec says.
    ModelNotFound,
    /// The hub does not let anybody, or this token, read the repository.
    ModelAccessDenied,
    /// The weights are damaged.
    WeightsCorrupt,
    /// The checkpoint is of a kind that is not served.
    UnsupportedArchitecture,
    /// One replica takes more memory than it has.
    DoesNotFit,
    /// Weights and KV cache do not fit into the GPU's memory.
    GpuOutOfMemory,
    /// The server has no code for this generation of GPUs.
    UnsupportedGpu,
    /// The image lacks a library of CUDA's.
    CudaLibraryMissing,
    /// The server refuses its arguments.
    InvalidArguments,
    /// The namespace's `PodSecurity` level forbids the pods.
    PodSecurityForbids,
    /// A container cannot be set up, for instance because a Secret is missing.
    ContainerConfigError,
    /// The image cannot be pulled.
    ImagePullError,
    /// A container used more memory than its limit.
    ContainerOOMKilled,
    /// The node's GPU driver is too old.
    DriverTooOld,
    /// The server finds no GPU on its node.
    NoGpu,
    /// The weights cannot be downloaded.
    WeightsDownloadFailed,
    /// The server could not start for a reason of its own.
    StartFailed,
    /// A container ends again and again.
    ContainerCrashLoopBackOff,
    /// A server runs but does not pass its probes.
    ProbeFailed,
    /// A server runs and does not answer a picture that a gateway sends it.
    NotRoutable,
    /// The API server refuses the pods.
    PodRefused,
    /// No node of the cluster has a GPU of the type.
    NoMatchingNode,
    /// A `ResourceQuota` is used up.
    QuotaExceeded,
    /// All GPUs of the type are in use.
    WaitingForGpu,
    /// No node takes the pod.
    Unschedulable,
    /// A node evicted the pod.
    PodEvicted,
    /// No gateway can be asked whether it reaches a server.
    GatewayUnreachable,
    /// The rollout made no progress for too long, and no pod says why.
    RolloutStuck,
}

/// When a trouble stalls the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalls {
    /// At once: only a person can mend it.
    AtOnce,
    /// When it has lasted for the progress deadline.
    AfterDeadline,
    /// Never: it may pass by itself.
    Never,
}

impl Trouble {
    /// Every trouble.
    pub const ALL: [Self; 32] = [
        Self::SpecRefused,
        Self::NameTaken,
        Self::GpuTypeUnknown,
        Self::VolumeNotFound,
        Self::ModelNotFound,
        Self::ModelAccessDenied,
        Self::WeightsCorrupt,
        Self::UnsupportedArchitecture,
        Self::DoesNotFit,
        Self::GpuOutOfMemory,
        Self::UnsupportedGpu,
        Self::CudaLibraryMissing,
        Self::InvalidArguments,
        Self::PodSecurityForbids,
        Self::ContainerConfigError,
        Self::ImagePullError,
        Self::ContainerOOMKilled,
        Self::DriverTooOld,
        Self::NoGpu,
        Self::WeightsDownloadFailed,
        Self::StartFailed,
        Self::ContainerCrashLoopBackOff,
        Self::ProbeFailed,
        Self::NotRoutable,
        Self::PodRefused,
        Self::NoMatchingNode,
        Self::QuotaExceeded,
        Self::WaitingForGpu,
        Self::Unschedulable,
        Self::PodEvicted,
        Self::GatewayUnreachable,
        Self::RolloutStuck,
    ];

    /// The word that stands in conditions.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SpecRefused => "SpecRefused",
            Self::NameTaken => "NameTaken",
            Self::GpuTypeUnknown => "GPUTypeUnknown",
            Self::VolumeNotFound => "VolumeNotFound",
            Self::ModelNotFound => Cause::ModelNotFound.reason(),
            Self::ModelAccessDenied => Cause::ModelAccessDenied.reason(),
            Self::WeightsCorrupt => Cause::WeightsCorrupt.reason(),
            Self::UnsupportedArchitecture => Cause::UnsupportedArchitecture.reason(),
            Self::DoesNotFit => "DoesNotFit",
            Self::GpuOutOfMemory => Cause::GpuOutOfMemory.reason(),
            Self::UnsupportedGpu => Cause::UnsupportedGpu.reason(),
            Self::CudaLibraryMissing => Cause::CudaLibraryMissing.reason(),
            Self::InvalidArguments => Cause::InvalidArguments.reason(),
            Self::PodSecurityForbids => "PodSecurityForbids",
            Self::ContainerConfigError => "ContainerConfigError",
            Self::ImagePullError => "ImagePullError",
            Self::ContainerOOMKilled => "ContainerOOMKilled",
            Self::DriverTooOld => Cause::DriverTooOld.reason(),
            Self::NoGpu => Cause::NoGpu.reason(),
            Self::WeightsDownloadFailed => Cause::WeightsDownloadFailed.reason(),
            Self::StartFailed => Cause::StartFailed.reason(),
            Self::ContainerCrashLoopBackOff => "ContainerCrashLoopBackOff",
            Self::ProbeFailed => "ProbeFailed",
            Self::NotRoutable => "NotRoutable",
            Self::PodRefused => "PodRefused",
            Self::NoMatchingNode => "NoMatchingNode",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::WaitingForGpu => "WaitingForGPU",
            Self::Unschedulable => "Unschedulable",
            Self::PodEvicted => "PodEvicted",
            Self::GatewayUnreachable => "GatewayUnreachable",
            Self::RolloutStuck => "RolloutStuck",
        }
    }

    /// When it stalls the object.
    pub const fn stalls(self) -> Stalls {
        match self {
            Self::SpecRefused
            | Self::NameTaken
            | Self::GpuTypeUnknown
            | Self::VolumeNotFound
            | Self::ModelNotFound
            | Self::ModelAccessDenied
            | Self::WeightsCorrupt
            | Self::UnsupportedArchitecture
            | Self::DoesNotFit
            | Self::UnsupportedGpu
            | Self::DriverTooOld
            | Self::CudaLibraryMissing
            | Self::InvalidArguments
            | Self::PodSecurityForbids
            | Self::RolloutStuck => Stalls::AtOnce,
            Self::ContainerConfigError
            | Self::ImagePullError
            | Self::ContainerOOMKilled
            | Self::GpuOutOfMemory
            | Self::NoGpu
            | Self::WeightsDownloadFailed
            | Self::StartFailed
            | Self::ContainerCrashLoopBackOff
            | Self::ProbeFailed
            | Self::NotRoutable
            | Self::PodRefused
            | Self::NoMatchingNode => Stalls::AfterDeadline,
            Self::QuotaExceeded
            | Self::WaitingForGpu
            | Self::Unschedulable
            | Self::PodEvicted
            | Self::GatewayUnreachable => Stalls::Never,
        }
    }
}

impl From<Cause> for Trouble {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::ModelNotFound => Self::ModelNotFound,
            Cause::ModelAccessDenied => Self::ModelAccessDenied,
            Cause::WeightsDownloadFailed => Self::WeightsDownloadFailed,
            Cause::WeightsCorrupt => Self::WeightsCorrupt,
            Cause::UnsupportedArchitecture => Self::UnsupportedArchitecture,
            Cause::InvalidArguments => Self::InvalidArguments,
            Cause::StartFailed => Self::StartFailed,
            Cause::NoGpu => Self::NoGpu,
            Cause::DriverTooOld => Self::DriverTooOld,
            Cause::UnsupportedGpu => Self::UnsupportedGpu,
            Cause::CudaLibraryMissing => Self::CudaLibraryMissing,
            Cause::GpuOutOfMemory => Self::GpuOutOfMemory,
        }
    }
}

/// Not Ready: the checkpoint is looked at, to tell whether it fits before pods are made.
pub const INSPECTING: &str = "Inspecting";
/// `FitsGPU`: one replica fits the memory that it has.
pub const FITS: &str = "Fits";

/// Ready: every replica answers.
pub const SERVING: &str = "Serving";
/// Ready and Available: `spec.replicas` is 0.
pub const SWITCHED_OFF: &str = "SwitchedOff";
/// Ready and Available: nobody has asked the model for a while, and the gateway wakes it.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// Not Ready: pods of this generation are starting.
pub const DEPLOYING: &str = "Deploying";
/// Reconciling: replicas are being added.
pub const SCALING: &str = "Scaling";
/// Not Ready: fewer replicas answer than wanted, and no pod says why.
pub const REPLICAS_UNREADY: &str = "ReplicasUnready";
/// Reconciling and Stalled: nothing is left to do.
pub const SETTLED: &str = "Settled";
/// Available: an older model has a name or an alias of it, so the gateway finds it by others only.
pub const ALIAS_CONFLICT: &str = "AliasConflict";
/// Not Available: no replica answers.
pub const NO_REPLICA_READY: &str = "NoReplicaReady";

/// `MetricsAvailable`: every source of the load answers.
pub const METRICS_FRESH: &str = "MetricsFresh";
/// `MetricsAvailable`: a source of the load is silent; replicas are not removed.
pub const METRICS_STALE: &str = "MetricsStale";
/// `MetricsAvailable`: nothing to read yet.
pub const METRICS_PENDING: &str = "MetricsPending";

/// `ScalingLimited`: the load asks for more than maxReplicas.
pub const MAX_REPLICAS_REACHED: &str = "MaxReplicasReached";
/// `ScalingLimited`: the load asks for no more than allowed.
pub const WITHIN_LIMITS: &str = "WithinLimits";

/// Why the number of replicas is what it is.
pub mod decision {
    /// The first number: minReplicas.
    pub const INITIAL: &str = "Initial";
    /// Taken over from the Deployment when the operator started.
    pub const TAKEN_OVER: &str = "TakenOver";
    /// `spec.replicas` says so.
    pub const FIXED: &str = "Fixed";
    /// The load of the calm window asks for more.
    pub const LOAD_ROSE: &str = "LoadRose";
    /// The load of the short window asks for much more.
    pub const LOAD_SURGED: &str = "LoadSurged";
    /// Requests were refused.
    pub const REQUESTS_REFUSED: &str = "RequestsRefused";
    /// The load has been lower for long enough.
    pub const LOAD_FELL: &str = "LoadFell";
    /// Nobody has asked the model for a while.
    pub const IDLE: &str = "Idle";
    /// A gateway holds requests for it.
    pub const WOKEN: &str = "Woken";
    /// minReplicas or maxReplicas changed.
    pub const LIMITS_CHANGED: &str = "LimitsChanged";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_its_own_reason_and_the_list_is_in_order() {
        for (i, a) in Trouble::ALL.into_iter().enumerate() {
            for b in &Trouble::ALL[i + 1..] {
                assert!(a < *b, "{a:?} {b:?}");
                assert_ne!(a.reason(), b.reason());
            }
        }
    }

    #[test]
    fn the_runtimes_causes_keep_their_reasons() {
        for cause in Cause::ALL {
            assert_eq!(Trouble::from(cause).reason(), cause.reason());
        }
    }
}

//! `spec.scaling`: bounds, target and windows of the autoscaler.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How the number of replicas follows the load. Ignored while `spec.replicas` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas"
).message("scaling.minReplicas must not be greater than scaling.maxReplicas"))]
#[x_kube(validation = Rule::new(
    "(has(self.panicSeconds) ? self.panicSeconds : 6) <= (has(self.stableSeconds) ? self.stableSeconds : 60)"
).message("scaling.panicSeconds (6 unless set) must not be greater than scaling.stableSeconds (60 unless set)"))]
pub struct Scaling {
    /// Fewest replicas. Default 1. With 0, a model that nobody asks has none, and the gateway holds the first requests
    /// while a replica starts; where no gateway is installed, 0 counts as 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Most replicas. Default: the greater of 1 and minReplicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// How much one replica is to carry: the operator wants
    /// (running + waiting requests) ÷ (concurrency + queueDepth) replicas, rounded up, and at least as many as complete
    /// what arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ScalingTarget>,
    /// Seconds over which the load is averaged in calm times. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 3600))]
    pub stable_seconds: Option<i32>,
    /// Seconds over which the load is averaged to notice a sudden rise. Default 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 600))]
    pub panic_seconds: Option<i32>,
    /// Replicas are removed only after the load has been lower for this many seconds. Default: as long as a replica
    /// takes to start, as measured, and 60 to 600; 300 while none was seen to start. With prometheus at least 60 and
    /// stableSeconds: what it says may be a minute old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub down_stabilization_seconds: Option<i32>,
    /// Take the load from a Prometheus server instead of from the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// When an idle model goes without replicas, and how many requests the gateway holds for one that wakes or is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero: Option<Zero>,
}

/// When an idle model goes without replicas, and how many requests the gateway holds for one that wakes or is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zero {
    /// With minReplicas 0: seconds without any request after which the last replica goes. Default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 604_800))]
    pub idle_seconds: Option<i32>,
    /// Most requests that wait at the gateway while a replica starts or all are full; further ones get 429. All
    /// replicas of the gateway together. Default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_held: Option<i32>,
    /// Most bytes of the bodies of requests that wait. Default 536870912, 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_099_511_627_776_i64))]
    pub max_held_bytes: Option<i64>,
    /// Seconds that a request waits before it gets 503. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_wait_seconds: Option<i32>,
    /// Whether a new model starts one replica, so that a manifest that cannot work is seen: Once, the default, or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::bounded::verify")]
    pub verify: Option<Verify>,
}

/// Whether a new model starts one replica though nobody asks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verify {
    /// It starts one and goes to zero after the idle time.
    #[default]
    Once,
    /// It starts none.
    Never,
}

impl Zero {
    /// `idleSeconds` or its default.
    pub fn idle_seconds(&self) -> u32 {
        seconds(self.idle_seconds, 600)
    }

    /// `maxHeld` or its default.
    pub fn max_held(&self) -> usize {
        self.max_held.and_then(|n| usize::try_from(n).ok()).unwrap_or(256)
    }

    /// `maxHeldBytes` or its default.
    pub fn max_held_bytes(&self) -> u64 {
        self.max_held_bytes.and_then(|n| u64::try_from(n).ok()).unwrap_or(512 << 20)
    }

    /// `maxWaitSeconds` or its default.
    pub fn max_wait_seconds(&self) -> u32 {
        seconds(self.max_wait_seconds, 300)
    }
}

/// How much one replica is to carry: the operator wants
/// (running + waiting requests) ÷ (concurrency + queueDepth) replicas, rounded up, and at least as many as complete
/// what arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingTarget {
    /// Requests that may wait for each replica. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub queue_depth: Option<i32>,
    /// Requests that each replica is to compute at a time; never more than it can. Default: all it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<i32>,
}

/// A query to the Prometheus server that the operator was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSource {
    /// PromQL whose single value is the number of running and waiting requests. $namespace and
    /// $name stand for those of this object. Example:
    /// sum(vlm_requests_running{namespace="$namespace",model="$name"}) + sum(vlm_requests_waiting{namespace="$namespace",model="$name"})
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
}

impl Scaling {
    /// `minReplicas` or its default.
    pub fn min(&self) -> i32 {
        self.min_replicas.unwrap_or(1).max(0)
    }

    /// `maxReplicas` or its default; at least 1, and never below [`Self::min`].
    pub fn max(&self) -> i32 {
        self.max_replicas.unwrap_or(1).max(self.min()).max(1)
    }

    /// `zero` or its defaults.
    pub fn zero(&self) -> Zero {
        self.zero.clone().unwrap_or_default()
    }

    /// `target.queueDepth` or its default.
    pub fn queue_depth(&self) -> i32 {
        self.target.as_ref().and_then(|t| t.queue_depth).unwrap_or(2).max(0)
    }

    /// `target.concurrency`.
    pub fn concurrency(&self) -> Option<i32> {
        self.target.as_ref().and_then(|t| t.concurrency)
    }

    /// `stableSeconds` or its default.
    pub fn stable_seconds(&self) -> u32 {
        seconds(self.stable_seconds, 60)
    }

    /// `panicSeconds` or its default.
    pub fn panic_seconds(&self) -> u32 {
        seconds(self.panic_seconds, 6)
    }

    /// `downStabilizationSeconds`; absent, it goes by the time that a replica takes to start.
    pub fn down_stabilization_seconds(&self) -> Option<u32> {
        self.down_stabilization_seconds.and_then(|s| u32::try_from(s).ok())
    }
}

fn seconds(given: Option<i32>, default: u32) -> u32 {
    given.and_then(|s| u32::try_from(s).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_maximum_is_never_below_the_minimum() {
        assert_eq!((Scaling::default().min(), Scaling::default().max()), (1, 1));
        let three = Scaling { min_replicas: Some(3), ..Scaling::default() };
        assert_eq!((three.min(), three.max()), (3, 3));
    }
}

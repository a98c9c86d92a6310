//! Specs that the API server takes and nothing can be made of: what each is told as, what a namespace needs first for
//! it to be so, and what mends it.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{apply, kubectl};
use crate::hub::{self, PUBLIC};
use crate::provoked::Provoked;
use crate::space::Space;
use crate::watch::models;

/// One such spec.
#[derive(Clone, Copy)]
pub struct Impossible {
    /// A word for the namespace.
    pub name: &'static str,
    /// The reason that it is told as.
    pub reason: &'static str,
    /// Whether only a person can go on.
    pub stalls: bool,
    /// Manifests that the namespace of this name gets first.
    pub setup: fn(&str) -> String,
    /// Fields of spec besides the defaults.
    pub spec: fn() -> Value,
    /// Words that the message must have.
    pub words: &'static [&'static str],
    /// Takes the cause away.
    pub mend: fn(&Space),
}

/// All of them.
pub const ALL: [Impossible; 8] = [
    Impossible {
        name: "refused",
        reason: "SpecRefused",
        stalls: true,
        setup: nothing,
        spec: || json!({"pod": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}}),
        words: &["cpu", "limit"],
        mend: usual,
    },
    Impossible {
        name: "taken",
        reason: "NameTaken",
        stalls: true,
        setup: service,
        spec: || limit(&json!({})),
        words: &["Service named tiny-llava"],
        mend: |space| drop(kubectl(&["delete", "service", "tiny-llava", "-n", &space.name]).expect("deleted")),
    },
    Impossible {
        name: "volume",
        reason: "VolumeNotFound",
        stalls: true,
        setup: nothing,
        spec: || json!({"model": {"uri": "pvc://nope/x"}}),
        words: &["PersistentVolumeClaim nope"],
        mend: usual,
    },
    Impossible {
        name: "quota",
        reason: "QuotaExceeded",
        stalls: false,
        setup: quota,
        spec: || json!({}),
        words: &["exceeded quota: none"],
        mend: |space| drop(kubectl(&["delete", "resourcequota", "none", "-n", &space.name]).expect("deleted")),
    },
    Impossible {
        name: "priority",
        reason: "PodRefused",
        stalls: false,
        setup: nothing,
        spec: || json!({"pod": {"priorityClassName": "nope"}}),
        words: &["nope"],
        mend: usual,
    },
    Impossible {
        name: "security",
        reason: "PodSecurityForbids",
        stalls: true,
        setup: nothing,
        spec: || json!({"pod": {"annotations": {"container.apparmor.security.beta.kubernetes.io/server": "unconfined"}}}),
        words: &["restricted", "AppArmor"],
        mend: usual,
    },
    Impossible {
        name: "gpu",
        reason: "GPUTypeUnknown",
        stalls: true,
        setup: nothing,
        spec: || json!({"gpu": {"type": "nvidia-l44"}}),
        words: &["nvidia-l44", "nvidia-l4"],
        mend: usual,
    },
    Impossible {
        name: "fit",
        reason: "DoesNotFit",
        stalls: true,
        setup: nothing,
        spec: || {
            let mut spec = limit(&json!({"memory": "256Mi"}));
            spec["model"] = json!({"uri": PUBLIC});
            spec
        },
        words: &["it does not fit", "a memory limit of "],
        mend: usual,
    },
];

/// Pods with these limits; without one of memory nobody looks at the checkpoint first.
fn limit(limits: &Value) -> Value {
    json!({"pod": {"resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": limits}}})
}

fn nothing(_: &str) -> String {
    String::new()
}

fn usual(space: &Space) {
    space.replace(&json!({}));
}

fn service(space: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: tiny-llava, namespace: {space}}}\nspec: {{ports: [{{port: 80}}]}}"
    )
}

fn quota(space: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: none, namespace: {space}}}\nspec: {{hard: {{pods: '0'}}}}"
    )
}

impl Impossible {
    /// A namespace with what the spec needs first.
    pub async fn case(&self, prefix: &str) -> Provoked {
        hub::start().await;
        let case = Provoked::with_model(&format!("{prefix}-{}", self.name)).await;
        let before = (self.setup)(&case.space.name);
        if !before.is_empty() {
            apply(&before).expect("what it needs first");
        }
        case
    }

    /// Creates the model and waits until its reason is told; how long that took from before the request was sent.
    pub async fn told(&self, case: &Provoked) -> Duration {
        let manifest = serde_json::from_value(case.space.manifest(&(self.spec)())).expect("an object");
        let (from, begun) = (case.watch.len(), Instant::now());
        models(&case.space.name).await.create(&PostParams::default(), &manifest).await.expect("created");
        let seen = case.told(from, self.reason, self.stalls, self.words).await;
        seen.at.duration_since(begun)
    }

    /// Deletes the model, and waits until it and its Deployment are gone.
    pub async fn clear(&self, case: &Provoked) {
        let from = case.watch.len();
        models(&case.space.name).await.delete("tiny-llava", &DeleteParams::foreground()).await.expect("deleted");
        case.watch.until("the deletion", from, 60, |seen| seen.deleted).await;
    }
}

//! Specs that the API server takes and nothing can be made of: what each is told as, and what a namespace needs
//! first for it to be so.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{apply, condition, kubectl};
use crate::hub::{self, PUBLIC};
use crate::space::Space;
use crate::watch::{Seen, Watch, models};

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
    },
    Impossible {
        name: "taken",
        reason: "NameTaken",
        stalls: true,
        setup: service,
        spec: || limit(&json!({})),
        words: &["Service named tiny-llava"],
    },
    Impossible {
        name: "volume",
        reason: "VolumeNotFound",
        stalls: true,
        setup: nothing,
        spec: || json!({"model": {"uri": "pvc://nope/x"}}),
        words: &["PersistentVolumeClaim nope"],
    },
    Impossible {
        name: "quota",
        reason: "QuotaExceeded",
        stalls: false,
        setup: quota,
        spec: || json!({}),
        words: &["exceeded quota: none"],
    },
    Impossible {
        name: "priority",
        reason: "PodRefused",
        stalls: false,
        setup: nothing,
        spec: || json!({"pod": {"priorityClassName": "nope"}}),
        words: &["nope"],
    },
    Impossible {
        name: "security",
        reason: "PodSecurityForbids",
        stalls: true,
        setup: nothing,
        spec: || json!({"pod": {"annotations": {"container.apparmor.security.beta.kubernetes.io/server": "unconfined"}}}),
        words: &["restricted", "AppArmor"],
    },
    Impossible {
        name: "gpu",
        reason: "GPUTypeUnknown",
        stalls: true,
        setup: nothing,
        spec: || json!({"gpu": {"type": "nvidia-l44"}}),
        words: &["nvidia-l44", "nvidia-l4"],
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
    },
];

/// Pods with these limits; without one of memory nobody looks at the checkpoint first.
fn limit(limits: &Value) -> Value {
    json!({"pod": {"resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": limits}}})
}

fn nothing(_: &str) -> String {
    String::new()
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
    pub async fn space(&self, prefix: &str) -> Space {
        hub::start().await;
        let space = Space::with_model(&format!("{prefix}-{}", self.name)).await;
        // A pod that comes before the volume is bound is unschedulable for a moment.
        let bound = ["wait", "pvc/tiny-llava", "-n", &space.name, "--for=jsonpath={.status.phase}=Bound"];
        kubectl(&bound).expect("a bound claim");
        let before = (self.setup)(&space.name);
        if !before.is_empty() {
            apply(&before).expect("what it needs first");
        }
        space
    }

    /// Creates the model; the state that tells the reason, and how long it took from before the request was sent
    /// until the watch showed it.
    pub async fn told(&self, space: &Space, watch: &Watch) -> (Seen, Duration) {
        let manifest = serde_json::from_value(space.manifest(&(self.spec)())).expect("an object");
        let (from, begun) = (watch.len(), Instant::now());
        models(&space.name).await.create(&PostParams::default(), &manifest).await.expect("created");
        let seen = watch.until_ready_is("False", self.reason, from, 90).await;
        let took = seen.at.duration_since(begun);
        let message = condition(&seen.object, "Ready")["message"].as_str().unwrap_or_default().to_owned();
        for word in self.words {
            assert!(message.contains(word), "{}: {word:?} is missing from: {message}", self.reason);
        }
        (seen, took)
    }

    /// Deletes the model, and waits until it and its Deployment are gone.
    pub async fn clear(&self, space: &Space, watch: &Watch) {
        let from = watch.len();
        models(&space.name).await.delete("tiny-llava", &DeleteParams::foreground()).await.expect("deleted");
        watch.until("the deletion", from, 60, |seen| seen.deleted).await;
    }
}

//! A model that was made to fail, and what must hold of every failure: the right reason in words, one Event, and
//! nothing left of it once the cause is gone.

use serde_json::{Value, json};

use crate::cluster::{condition, kubectl};
use crate::space::Space;
use crate::watch::{Seen, Watch};

/// One model that fails for one reason.
pub struct Provoked {
    /// The namespace that it has to itself.
    pub space: Space,
    /// Its states.
    pub watch: Watch,
}

impl Provoked {
    /// In a namespace of this name, with the tiny model on a bound volume.
    pub async fn with_model(name: &str) -> Self {
        let space = Space::with_model(name).await;
        // A pod that comes before the volume is bound is unschedulable for a moment.
        let bound = ["wait", "pvc/tiny-llava", "-n", name, "--for=jsonpath={.status.phase}=Bound", "--timeout=30s"];
        kubectl(&bound).expect("a bound claim");
        Self::within(space).await
    }

    /// In a namespace that is there already.
    pub async fn within(space: Space) -> Self {
        let watch = Watch::start(&space.name, "tiny-llava").await;
        Self { space, watch }
    }

    /// Applies the spec and waits for the reason.
    pub async fn fails(&self, spec: &Value, reason: &str, stalled: bool, words: &[&str]) -> Seen {
        let from = self.watch.len();
        self.space.apply(spec).expect("apply");
        self.told(from, reason, stalled, words).await
    }

    /// Waits for the reason, which must have these words and its place in the failures too; the object says whether
    /// somebody is still at work.
    pub async fn told(&self, from: usize, reason: &str, stalled: bool, words: &[&str]) -> Seen {
        let seen = self.watch.until_ready_is("False", reason, from, 180).await;
        let object = &seen.object;
        let message = condition(object, "Ready")["message"].as_str().unwrap_or_default().to_owned();
        for word in words {
            assert!(message.contains(word), "{reason}: {word:?} is missing from: {message}");
        }
        // A deadline that has passed is no failure of a pod or of the spec.
        let first = if reason == "RolloutStuck" { Value::Null } else { json!(reason) };
        assert_eq!(object["status"]["failures"][0]["reason"], first, "{}", object["status"]["failures"]);
        let (given_up, at_work) = if stalled { ("True", "False") } else { ("False", "True") };
        assert_eq!(condition(object, "Stalled")["status"], given_up, "{reason}");
        assert_eq!(condition(object, "Reconciling")["status"], at_work, "{reason}");
        println!("{reason}: {message}");
        seen
    }

    /// Waits until the model answers with nothing left of the failure; its reason was one Event. Ends the namespace.
    pub async fn recovers(self, from: usize, reason: &str) {
        self.recovered(from, reason).await;
        self.space.close();
    }

    /// [`Self::recovers`], and the namespace stays.
    pub async fn recovered(&self, from: usize, reason: &str) -> Seen {
        let seen = self.watch.until_ready_is("True", "", from, 180).await;
        let settled = |seen: &Seen| {
            let says = |kind: &str| condition(&seen.object, kind)["status"].clone();
            says("Ready") == "True" && says("Reconciling") == "False" && says("Stalled") == "False"
        };
        let seen = if settled(&seen) { seen } else { self.watch.until("settled", from, 60, settled).await };
        let failures = &seen.object["status"]["failures"];
        assert!(failures.is_null() || *failures == json!([]), "{reason} left {failures}");
        assert_eq!(self.events(reason), 1, "{reason}: one Event per transition");
        seen
    }

    /// How often an Event of this reason was told of the model.
    pub fn events(&self, reason: &str) -> u64 {
        let text = kubectl(&["get", "events.events.k8s.io", "-n", &self.space.name, "-o", "json"]).expect("events");
        let all: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        let of_model = all["items"].as_array().into_iter().flatten();
        let told = of_model.filter(|e| e["reason"] == reason && e["regarding"]["kind"] == "VisionModel");
        told.map(|e| e["series"]["count"].as_u64().unwrap_or(1)).sum()
    }
}

//! Reports of made-up situations, each named by what a person would expect.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use vlm_crds::status::reasons::Trouble;

use super::*;
use crate::autoscaler::table::{AutoView, Seen};

mod deadline;
mod failing;
mod fitting;
mod on_gpus;
mod probes;
mod transitions;

const TEMPLATE: &str = "t1";

/// One model over time.
struct Scene {
    model: VisionModel,
    observed: Observed,
    deployment: Deployment,
    template: String,
    refused: Option<Problem>,
    /// The checkpoint is still being looked at.
    looking: bool,
    fitted: Option<Fitted>,
    gpu: Option<Gpu>,
    scale: View,
    lost_names: Option<Vec<String>>,
    status: VisionModelStatus,
    remembered: Remembered,
    now: Timestamp,
}

impl Scene {
    /// A model whose Deployment was just created.
    fn new(desired: i32) -> Self {
        let model = json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
            "metadata": {"name": "tiny", "namespace": "shop", "uid": "u1", "generation": 1},
            "spec": {"model": {"uri": "pvc://weights/tiny"}},
        });
        let mut scene = Self {
            model: serde_json::from_value(model).unwrap(),
            observed: Observed { claim_exists: true, ..Observed::default() },
            deployment: Deployment::default(),
            template: TEMPLATE.to_owned(),
            refused: None,
            looking: false,
            fitted: None,
            gpu: None,
            scale: View { desired, reason: "Initial".to_owned(), history: Vec::new(), auto: None },
            lost_names: None,
            status: VisionModelStatus::default(),
            remembered: Remembered::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        scene.deployed(0, 0, 0);
        scene
    }

    /// A model that serves with `desired` replicas.
    fn serving(desired: i32) -> Self {
        let mut scene = Self::new(desired);
        scene.deployed(desired, desired, desired);
        scene.report();
        assert_eq!(scene.ready(), ("True", reasons::SERVING));
        scene
    }

    fn deployed(&mut self, current: i32, updated: i32, ready: i32) {
        self.deployment = serde_json::from_value(json!({
            "metadata": {"name": "tiny", "generation": 3},
            "status": {
                "observedGeneration": 3, "replicas": current, "updatedReplicas": updated, "readyReplicas": ready,
                "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
            },
        }))
        .unwrap();
    }

    fn deployment_says(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let condition = json!({"type": kind, "status": status, "reason": reason, "message": message});
        self.deployment.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
    }

    fn pods(&mut self, pods: &[Value]) {
        self.observed.pods =
            pods.iter().map(|pod| Arc::new(serde_json::from_value::<Pod>(pod.clone()).unwrap())).collect();
    }

    fn wait(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// Makes the next report; returns whether it differs from the last, and when to look again.
    fn report(&mut self) -> (bool, Option<Duration>) {
        let report = super::report(
            &Facts {
                model: &self.model,
                previous: &self.status,
                observed: &self.observed,
                applied: match &self.refused {
                    Some(problem) => Err(Some(problem)),
                    None if self.looking => Err(None),
                    None => Ok((&self.deployment, &self.template)),
                },
                inspection: None,
                fitted: self.fitted.as_ref(),
                gpu: self.gpu.as_ref(),
                scale: &self.scale,
                lost_names: self.lost_names.as_deref(),
                settings: &Settings {
                    runtime_image: "i".to_owned(),
                    runtime_cuda_image: "cuda".to_owned(),
                    image_pull_policy: "Always".to_owned(),
                    hub_endpoint: None,
                    gateway_public_key: None,
                    gated: false,
                },
                now: self.now,
            },
            &mut self.remembered,
        );
        let changed = report.status != self.status;
        self.status = report.status;
        (changed, report.look_again)
    }

    fn condition(&self, kind: &str) -> &Condition {
        self.status.conditions.iter().find(|c| c.type_ == kind).unwrap()
    }

    fn says(&self, kind: &str) -> (&str, &str) {
        let condition = self.condition(kind);
        (&condition.status, &condition.reason)
    }

    fn ready(&self) -> (&str, &str) {
        self.says(READY)
    }
}

/// A pod of the current template whose server is in `state`, after `restarts`.
fn pod(name: &str, state: &Value, last: &Value, restarts: i32) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {labels::TEMPLATE: TEMPLATE}},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "server", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last,
        }]},
    })
}

fn ended(code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}})
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

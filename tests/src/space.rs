//! A namespace of a test's own, with a volume of weights, and a `VisionModel` in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::{apply, await_that, cluster, condition, get, kubectl, list, service_ip};
use crate::tools::root;

/// A namespace that one test owns. What a failed test leaves goes with the cluster.
pub struct Space {
    /// Its name.
    pub name: String,
    volume: PathBuf,
}

impl Space {
    /// Creates namespace, volume and claim `tiny-llava`; the volume holds the tiny model.
    pub async fn with_model(name: &str) -> Self {
        let space = Self::empty(name).await;
        space.add_claim();
        copy_folder(&root().join("examples/tiny-llava/model"), &space.volume.join("tiny-llava"));
        space
    }

    /// Creates the namespace alone.
    pub async fn empty(name: &str) -> Self {
        cluster().await;
        let volume = PathBuf::from("/var/lib/vlm-tests").join(name);
        std::fs::create_dir_all(&volume).expect("volume folder");
        apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}"))
            .expect("namespace");
        Self { name: name.to_owned(), volume }
    }

    /// The folder that the volume's pods see as its root.
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// Creates the claim `tiny-llava` and a volume bound to it.
    pub fn add_claim(&self) {
        let (name, path) = (&self.name, self.volume.display());
        apply(&format!(
            "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 64Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {{path: {path}}}
  claimRef: {{namespace: {name}, name: tiny-llava}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: tiny-llava, namespace: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  volumeName: {name}
  resources: {{requests: {{storage: 64Mi}}}}"
        ))
        .expect("volume and claim");
    }

    /// A manifest of a `VisionModel` `tiny-llava` with these fields of spec besides the defaults.
    pub fn manifest(&self, spec: &Value) -> Value {
        let mut all = json!({
            "model": {"uri": "pvc://tiny-llava/tiny-llava"},
            "pod": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}},
        });
        for (key, value) in spec.as_object().expect("an object") {
            all[key] = value.clone();
        }
        json!({"apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
               "metadata": {"name": "tiny-llava", "namespace": self.name}, "spec": all})
    }

    /// `kubectl apply` of [`Self::manifest`].
    pub fn apply(&self, spec: &Value) -> Result<String, String> {
        apply(&self.manifest(spec).to_string())
    }

    /// `kubectl replace` of [`Self::manifest`]: whatever it does not name is gone, whoever has made the object.
    pub fn replace(&self, spec: &Value) {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(self.manifest(spec).to_string().as_bytes()).expect("temporary file");
        let path = file.path().to_str().expect("UTF-8 path");
        // The operator may write its status between kubectl's reading and writing.
        let mut said = kubectl(&["replace", "-f", path]);
        while said.as_ref().is_err_and(|error| error.contains("Conflict")) {
            said = kubectl(&["replace", "-f", path]);
        }
        said.expect("replaced");
    }

    /// The `VisionModel`.
    pub fn model(&self) -> Value {
        get("visionmodel", "tiny-llava", &self.name).expect("the VisionModel exists")
    }

    /// Waits until a condition has a status and a reason (empty: any reason).
    pub async fn await_condition(&self, kind: &str, status: &str, reason: &str, limit_seconds: u64) -> Value {
        await_that(&format!("{kind}={status} {reason}"), limit_seconds, || async {
            let model = self.model();
            let found = condition(&model, kind);
            let current = found["observedGeneration"] == model["metadata"]["generation"];
            if current && found["status"] == status && (reason.is_empty() || found["reason"] == reason) {
                return Ok(found);
            }
            Err(model["status"]["conditions"].to_string())
        })
        .await
    }

    /// Waits until the model answers.
    pub async fn await_ready(&self) {
        self.await_condition("Ready", "True", "", 60).await;
    }

    /// Waits until the Deployment's written replicas pass a test, and returns them.
    pub async fn await_replicas(&self, what: &str, limit_seconds: u64, test: impl Fn(i64) -> bool) -> i64 {
        await_that(what, limit_seconds, || async {
            let replicas = self.written_replicas();
            if test(replicas) { Ok(replicas) } else { Err(format!("{replicas} replicas; {}", self.model()["status"])) }
        })
        .await
    }

    /// `spec.replicas` of the Deployment.
    pub fn written_replicas(&self) -> i64 {
        get("deployment", "tiny-llava", &self.name).map_or(0, |d| d["spec"]["replicas"].as_i64().unwrap_or(0))
    }

    /// The model's pods.
    pub fn pods(&self) -> Vec<Value> {
        list("pods", &self.name, "vlm-operator.dev/model=tiny-llava")
    }

    /// Base address of the model's Service.
    pub fn address(&self) -> String {
        format!("http://{}", service_ip("tiny-llava", &self.name))
    }

    /// Deletes the namespace and its volume; does not wait.
    pub fn close(self) {
        let _ = kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        let _ = kubectl(&["delete", "persistentvolume", &self.name, "--wait=false", "--ignore-not-found"]);
    }
}

/// Copies a folder, one level deep.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("entry");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
        }
    }
}

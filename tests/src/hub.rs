//! The hub of models inside the cluster: its Service stands from the start, so that the operator can be told its
//! address; its pod comes when a test asks for it.

use tokio::sync::OnceCell;

use crate::cluster::{apply, cluster, kubectl, service_ip};

/// Its namespace.
pub const NAMESPACE: &str = "hub";
/// A repository that anybody may read.
pub const PUBLIC: &str = "hf://tiny/tiny-llava";
/// One that only [`TOKEN`] opens.
pub const PRIVATE: &str = "hf://tiny/private";
/// One with a file whose name is longer than a file's may be while it is fetched.
pub const LONG_NAME: &str = "hf://tiny/long-name";
/// What opens the private one; the image has the same.
pub const TOKEN: &str = "hf_test_token";

static STARTED: OnceCell<()> = OnceCell::const_new();

/// Creates namespace and Service; returns the hub's address.
pub fn address() -> String {
    apply(&format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Service
metadata: {{name: hub, namespace: {NAMESPACE}}}
spec:
  selector: {{app: hub}}
  ports: [{{name: hub, port: 8080}}, {{name: storage, port: 8081}}]"
    ))
    .expect("the hub's Service");
    format!("http://{}:8080", service_ip("hub", NAMESPACE))
}

/// Starts the hub, once, and waits until it answers.
pub async fn start() {
    cluster().await;
    STARTED
        .get_or_init(|| async {
            apply(&format!(
                "apiVersion: apps/v1
kind: Deployment
metadata: {{name: hub, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: hub}}}}
  template:
    metadata: {{labels: {{app: hub}}}}
    spec:
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: hub
          image: localhost/vlm-test-hub:{}
          imagePullPolicy: IfNotPresent
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
          securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}",
                env!("CARGO_PKG_VERSION")
            ))
            .expect("the hub's Deployment");
            kubectl(&["rollout", "status", "deployment/hub", "-n", NAMESPACE, "--timeout=60s"]).expect("the hub runs");
        })
        .await;
}

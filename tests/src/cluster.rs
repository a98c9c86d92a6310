//! The cluster under test: the chart installed once, kubectl and helm, and waiting for conditions.

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::Value;
use tokio::sync::{OnceCell, RwLock};

use crate::hub;
use crate::tools::{documents, root, run, tool};

/// Namespace of the operator.
pub const SYSTEM: &str = "vlm-system";
/// Namespace of the Prometheus server that scrapes every model pod.
pub const MONITORING: &str = "monitoring";

/// Whoever kills operator pods holds this for writing, whoever needs them undisturbed for reading:
/// a new leader applies every child once.
pub static OPERATOR: RwLock<()> = RwLock::const_new(());

static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// Runs kubectl; what it says on failure is the error.
pub fn kubectl(args: &[&str]) -> Result<String, String> {
    run(Command::new(tool("kubectl")).args(args))
}

/// `kubectl apply` of manifests.
pub fn apply(manifests: &str) -> Result<String, String> {
    let mut child = Command::new(tool("kubectl"))
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    child.stdin.take().expect("piped").write_all(manifests.as_bytes()).map_err(|e| e.to_string())?;
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The object, or `None`.
pub fn get(kind: &str, name: &str, namespace: &str) -> Option<Value> {
    let text = kubectl(&["get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"]).expect("kubectl get");
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("kubectl prints JSON"))
}

/// The items of a list.
pub fn list(kind: &str, namespace: &str, selector: &str) -> Vec<Value> {
    let text = kubectl(&["get", kind, "-n", namespace, "-l", selector, "-o", "json"]).expect("kubectl get");
    let value: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    value["items"].as_array().cloned().unwrap_or_default()
}

/// The condition of a type, or null.
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or(Value::Null)
}

/// Asks every 100 ms until the answer is `Ok`; past the limit, fails with the last `Err`.
pub async fn await_that<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    limit_seconds: u64,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + Duration::from_secs(limit_seconds);
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => {
                panic!("{what}: not within {limit_seconds} s; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A client of the cluster of `KUBECONFIG`, with the chart and a Prometheus server installed.
pub async fn cluster() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    INSTALLED.get_or_init(|| async { install() }).await;
    Client::try_default().await.expect("KUBECONFIG names a cluster")
}

fn install() {
    if kubectl(&["get", "deployment", "vlm-operator", "-n", SYSTEM]).is_ok() {
        return; // by another test program, before
    }
    for namespace in [SYSTEM, MONITORING] {
        apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}")).expect("namespace");
    }
    let manifest = std::fs::read_to_string(root().join("examples/prometheus.yaml")).expect("examples/prometheus.yaml");
    let service = documents(&manifest)[0].to_string();
    kubectl_in(MONITORING, &service);
    apply_rendered_chart();
    helm_install(&[]);
    // No DNS in this cluster: the Service's address stands in for its name.
    let operator = service_ip("vlm-operator", SYSTEM);
    kubectl_in(MONITORING, &manifest.replace("vlm-operator.vlm-system.svc", &operator));
    kubectl(&["rollout", "status", "deployment/prometheus", "-n", MONITORING, "--timeout=120s"]).expect("prometheus");
}

/// The other way of installing, `helm template | kubectl apply`: it too must end with a running operator.
fn apply_rendered_chart() {
    let mut helm = Command::new(tool("helm"));
    helm.args(["template", "vlm-operator"]).arg(chart()).args(["--namespace", SYSTEM]);
    let rendered = run(&mut helm).expect("helm template");
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), rendered).expect("temporary file");
    let path = file.path().to_str().expect("UTF-8 path");
    kubectl(&["apply", "-f", path]).expect("kubectl apply of the rendered chart");
    let rollout = ["rollout", "status", "deployment/vlm-operator", "-n", SYSTEM, "--timeout=120s"];
    kubectl(&rollout).expect("the operator of the rendered chart runs");
    let crd = ["wait", "crd/visionmodels.vlm-operator.dev", "--for=condition=Established", "--timeout=30s"];
    kubectl(&crd).expect("the CRD of the rendered chart is established");
    kubectl(&["delete", "-f", path, "--timeout=60s"]).expect("kubectl delete of the rendered chart");
}

/// `helm upgrade --install` with more settings; waits until the operator is ready.
pub fn helm_install(settings: &[&str]) {
    let prometheus = format!("prometheus.url=http://{}:9090", service_ip("prometheus", MONITORING));
    let hub = format!("hub.endpoint={}", hub::address());
    let mut command = Command::new(tool("helm"));
    command.args(["upgrade", "--install", "vlm-operator"]).arg(chart()).args(["--namespace", SYSTEM]);
    command.args(["--set", &prometheus, "--set", &hub, "--wait", "--timeout", "2m"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    run(&mut command).expect("helm installs the chart");
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    root().join("charts/vlm-operator")
}

fn kubectl_in(namespace: &str, manifests: &str) {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), manifests).expect("temporary file");
    let path = file.path().to_str().expect("UTF-8 path");
    kubectl(&["apply", "-n", namespace, "-f", path]).expect("kubectl apply");
}

/// The cluster address of a Service.
pub fn service_ip(name: &str, namespace: &str) -> String {
    let service = get("service", name, namespace).unwrap_or_else(|| panic!("no Service {namespace}/{name}"));
    service["spec"]["clusterIP"].as_str().expect("clusterIP").to_owned()
}

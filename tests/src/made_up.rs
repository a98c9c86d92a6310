//! Nodes that kwok plays, and models whose pods go there: they become ready without running, or,
//! with the annotation `hold`, stay as the test makes them.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{await_that, cluster, kubectl};
use crate::space::Space;

const NODE: &str = "made-up";

/// Makes sure that the node is there and ready.
pub async fn node() {
    make(
        NODE,
        &json!({"a": "a", "b": "b", "c": "c", "d": "d"}),
        &json!({"key": NODE, "effect": "NoSchedule"}),
        &json!({}),
    )
    .await;
}

/// Makes sure that a node with GPUs is there and ready: with labels that tell which, the usual taint, and so many of
/// each device for pods.
pub async fn gpu_node(name: &str, labels: &Value, devices: &Value) {
    let taint = json!({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"});
    make(name, labels, &taint, devices).await;
}

/// Takes a node away.
pub fn remove(name: &str) {
    kubectl(&["delete", "node", name, "--ignore-not-found"]).expect("kubectl delete");
}

async fn make(name: &str, labels: &Value, taint: &Value, devices: &Value) {
    let api: Api<Node> = Api::all(cluster().await);
    let mut labels = labels.clone();
    labels["type"] = json!("kwok");
    let mut room = json!({"cpu": "10000", "memory": "100Ti", "pods": "20000"});
    for (device, count) in devices.as_object().expect("devices") {
        room[device] = count.clone();
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]},
    });
    let status = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                        "status": {"capacity": room, "allocatable": room}});
    let params = PatchParams::apply("vlm-tests").force();
    api.patch(name, &params, &Patch::Apply(node)).await.expect("node");
    api.patch_status(name, &params, &Patch::Apply(status)).await.expect("room on the node");
    await_that("the made-up node is ready", 30, || async {
        let node = api.get(name).await.map_err(|e| e.to_string())?;
        let status = node.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        if ready { Ok(()) } else { Err(format!("{:?}", status.conditions)) }
    })
    .await;
}

/// The fields of spec, and with them a place on the node. `hold`: its pods are the test's to change.
pub fn placed(spec: &Value, hold: bool) -> Value {
    let mut spec = spec.clone();
    let pod = &mut spec["pod"];
    pod["nodeSelector"]["type"] = json!("kwok");
    match pod["tolerations"].as_array_mut() {
        Some(others) => others.push(json!({"key": NODE, "operator": "Exists"})),
        None => pod["tolerations"] = json!([{"key": NODE, "operator": "Exists"}]),
    }
    if hold {
        pod["annotations"]["hold"] = json!("true");
    }
    spec
}

/// A manifest of a model of any name in the space, placed on the node.
pub fn manifest(space: &Space, name: &str, spec: &Value, hold: bool) -> Value {
    let mut manifest = space.manifest(&placed(spec, hold));
    manifest["metadata"]["name"] = json!(name);
    // Without a limit nobody has to look at the checkpoint first.
    if let Some(Value::Object(limits)) = manifest.pointer_mut("/spec/pod/resources/limits") {
        limits.remove("memory");
    }
    manifest
}

/// The one pod of a model that is not on its way out.
pub async fn pod_of(space: &Space, name: &str) -> Pod {
    let api: Api<Pod> = Api::namespaced(cluster().await, &space.name);
    let selector = kube::api::ListParams::default().labels(&format!("vlm-operator.dev/model={name}"));
    await_that("a scheduled pod", 30, || async {
        let pods = api.list(&selector).await.map_err(|e| e.to_string())?.items;
        let placed = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        let over = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
        let mut live = pods.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none() && placed(p) && !over(p));
        live.next().ok_or_else(|| "none".to_owned())
    })
    .await
}

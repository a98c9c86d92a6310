//! A server that can use no GPU, run by the real kubelet on the real node, which says it has some: each exit code of the
//! diagnosis of GPUs is its reason, and a model that goes to a processor instead recovers.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use vlm_contract::diagnosis::Cause;
use vlm_tests::cluster::cluster;
use vlm_tests::provoked::Provoked;

const TYPE: &str = "nvidia-l4";

/// Makes the real node one with GPUs, as an administrator advertises any extended resource, or takes them away again.
async fn gpus(count: Option<&str>) {
    let nodes: Api<Node> = Api::all(cluster().await);
    let all = nodes.list(&ListParams::default().labels("type!=kwok")).await.unwrap().items;
    let name = all[0].metadata.name.clone().unwrap();
    let label = count.map_or(Value::Null, |_| json!("NVIDIA-L4"));
    let labels = json!({"metadata": {"labels": {"nvidia.com/gpu.product": label}}});
    let room = json!({"nvidia.com/gpu": count.map_or(Value::Null, |count| json!(count))});
    let status = json!({"status": {"capacity": room, "allocatable": room}});
    nodes.patch(&name, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_exit_code_of_a_server_that_can_use_no_gpu_is_its_reason() {
    gpus(Some("5")).await;
    let causes = [
        (Cause::NoGpu, false),
        (Cause::DriverTooOld, true),
        (Cause::UnsupportedGpu, true),
        (Cause::CudaLibraryMissing, true),
        (Cause::GpuOutOfMemory, false),
    ];
    let all = causes.map(|(cause, stalls)| {
        tokio::spawn(async move {
            let reason = cause.reason();
            let case = Provoked::with_model(&format!("t-{}", reason.to_lowercase())).await;
            let mut spec = case.space.manifest(&json!({"replicas": 1, "gpu": {"type": TYPE}}))["spec"].clone();
            spec["pod"]["env"] = json!([{"name": "FAILS_AS", "value": reason}]);
            let code = format!("exit code {}", cause.exit_code());
            case.fails(&spec, reason, stalls, &["container server", &code, cause.mend()]).await;
            let from = case.watch.len();
            case.space.apply(&json!({"replicas": 1})).unwrap();
            case.recovers(from, reason).await;
        })
    });
    let ended = futures::future::join_all(all).await;
    gpus(None).await;
    let failed = ended.iter().filter(|ended| ended.is_err()).count();
    assert!(failed == 0, "{failed} of the causes failed; each has said why above");
}

//! Models that ask for a GPU, on nodes that kwok plays: where their pods land, what is said when they cannot, and
//! that edits of the catalogue and of nodes act at once. Each test has GPU types of its own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vlm_tests::cluster::{SYSTEM, await_that, condition, get, kubectl, service_ip};
use vlm_tests::made_up::{gpu_node, remove};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;
use vlm_tests::watch::{Seen, Watch};

/// A change shows after this at most, though all other tests run meanwhile; alone it is far below a second.
const SOON: Duration = Duration::from_secs(5);

fn on(gpu: &str) -> Value {
    json!({"replicas": 1, "gpu": {"type": gpu}, "rollout": {"progressDeadlineSeconds": 20}})
}

/// Names, uids and nodes of the model's pods.
fn pods(space: &Space) -> Vec<Value> {
    let of = |pod: &Value| json!([pod["metadata"]["name"], pod["metadata"]["uid"], pod["spec"]["nodeName"]]);
    space.pods().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lands_on_a_node_of_its_type_however_the_cluster_labels_it() {
    let gke = "cloud.google.com/gke-accelerator";
    let one = json!({"nvidia.com/gpu": "1"});
    gpu_node("g-l40s", &json!({"nvidia.com/gpu.product": "NVIDIA-L40S"}), &one).await;
    gpu_node("g-a100", &json!({gke: "nvidia-a100-80gb"}), &one).await;
    gpu_node("g-slice", &json!({gke: "nvidia-a100-80gb", "cloud.google.com/gke-gpu-partition-size": "1g.10gb"}), &one)
        .await;
    gpu_node("g-a10g", &json!({"karpenter.k8s.aws/instance-gpu-name": "a10g"}), &one).await;
    gpu_node("g-aks", &json!({"node.kubernetes.io/instance-type": "Standard_ND96isr_H200_v5"}), &one).await;
    let cases = [
        ("nvidia-a100-80gb", "g-a100"),
        ("nvidia-l40s", "g-l40s"),
        ("nvidia-a10g", "g-a10g"),
        ("nvidia-h200", "g-aks"),
    ];
    for (gpu, node) in cases {
        let space = Space::with_model(&format!("t-{gpu}")).await;
        space.apply(&on(gpu)).unwrap();
        space.await_ready().await;
        let pod = space.pods().remove(0);
        assert_eq!(pod["spec"]["nodeName"], node, "{gpu}");
        let server = &pod["spec"]["containers"][0];
        assert_eq!(server["resources"]["limits"]["nvidia.com/gpu"], "1");
        assert!(server["image"].as_str().unwrap().contains("/vlm-runtime-cuda:"), "{server}");
        assert!(server["args"].to_string().contains(r#""--device","cuda""#), "{server}");
        let (model, line) = (space.model(), kubectl(&["get", "vlm", "-n", &space.name]).unwrap());
        assert_eq!(model["status"]["resolved"]["image"], server["image"]);
        let cost = model["status"]["cost"]["perHour"].as_str().unwrap_or_else(|| panic!("no cost: {model}"));
        for word in ["MODEL", "QUANT", "GPU", "READY", "STATUS", "COST/H", "AGE", gpu, "1/1", "Serving", cost] {
            assert!(line.contains(word), "{word} is missing from:\n{line}");
        }
        space.close();
    }
    for node in ["g-l40s", "g-a100", "g-slice", "g-a10g", "g-aks"] {
        remove(node);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_type_is_told_at_once_and_touches_nothing() {
    gpu_node("g-4090", &json!({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}), &json!({"nvidia.com/gpu": "4"}))
        .await;
    let case = Provoked::with_model("t-gpu-unknown").await;
    let (space, watch) = (&case.space, &case.watch);
    let words = ["did you mean nvidia-rtx-4090", "gpuTypes"];
    let seen = case.fails(&on("nvidia-rtx-409"), "GPUTypeUnknown", true, &words).await;
    assert_eq!(seen.object["status"]["cost"], Value::Null);
    assert!(get("deployment", "tiny-llava", &space.name).is_none() && space.pods().is_empty());
    let from = watch.len();
    space.apply(&on("nvidia-rtx-4090")).unwrap();
    case.recovered(from, "GPUTypeUnknown").await;
    let (before, from) = (pods(space), watch.len());
    space.apply(&on("nvidia-rtx-4o90")).unwrap();
    let seen = watch.until_ready_is("False", "GPUTypeUnknown", from, 30).await;
    assert_eq!(condition(&seen.object, "Available")["status"], "True", "what ran before goes on answering");
    assert_eq!(pods(space), before);
    case.space.close();
    remove("g-4090");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_no_node_has_stalls_after_the_deadline_and_a_node_mends_it() {
    gpu_node("g-h100", &json!({"nvidia.com/gpu.product": "NVIDIA-H100-PCIe"}), &json!({"nvidia.com/gpu": "3"})).await;
    let case = Provoked::with_model("t-gpu-nowhere").await;
    let watch = &case.watch;
    let words = [
        "no node has a GPU of the type nvidia-h100-nvl",
        "NVIDIA-H100-PCIe (3 nvidia.com/gpu on 1 node)",
        "pod tiny-llava-",
    ];
    // Not stalled: a node autoscaler may be at work.
    case.fails(&on("nvidia-h100-nvl"), "NoMatchingNode", false, &words).await;
    let stalled = |seen: &Seen| condition(&seen.object, "Stalled")["status"] == "True";
    let seen = watch.until("stalled after the deadline", 0, 60, stalled).await;
    assert_eq!(condition(&seen.object, "Stalled")["reason"], "NoMatchingNode");
    let (from, begun) = (watch.len(), Instant::now());
    gpu_node("g-h100-nvl", &json!({"nvidia.com/gpu.product": "NVIDIA-H100-NVL"}), &json!({"nvidia.com/gpu": "1"}))
        .await;
    let cleared = |seen: &Seen| {
        condition(&seen.object, "Ready")["reason"] != "NoMatchingNode"
            && condition(&seen.object, "Stalled")["status"] == "False"
    };
    let seen = watch.until("the reason is gone", from, 30, cleared).await;
    println!("cleared {:?} after the node was asked for", seen.at.duration_since(begun));
    assert!(seen.at.duration_since(begun) < SOON);
    case.recovers(from, "NoMatchingNode").await;
    remove("g-h100");
    remove("g-h100-nvl");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_is_waited_for_without_stalling() {
    let label = json!({"nvidia.com/gpu.product": "NVIDIA-A10"});
    gpu_node("g-a10", &label, &json!({"nvidia.com/gpu": "1"})).await;
    let case = Provoked::with_model("t-gpu-full").await;
    let space = &case.space;
    let mut spec = on("nvidia-a10");
    (spec["replicas"], spec["rollout"]["progressDeadlineSeconds"]) = (json!(2), json!(10));
    let words = ["every GPU of the type nvidia-a10 is in use", "Insufficient nvidia.com/gpu"];
    let seen = case.fails(&spec, "WaitingForGPU", false, &words).await;
    let price = seen.object["status"]["cost"]["perHour"].clone();
    assert_eq!(price, "6.40", "of both replicas");
    // Past the deadline, by the Deployment's own word.
    await_that("the Deployment's deadline passes", 40, || async {
        let deployment = get("deployment", "tiny-llava", &space.name).unwrap();
        let progressing = condition(&deployment, "Progressing");
        if progressing["reason"] == "ProgressDeadlineExceeded" { Ok(()) } else { Err(progressing.to_string()) }
    })
    .await;
    let model = space.model();
    assert_eq!(condition(&model, "Stalled")["status"], "False", "{model}");
    assert_eq!(condition(&model, "Available")["status"], "True", "one answers");
    let from = case.watch.len();
    gpu_node("g-a10", &label, &json!({"nvidia.com/gpu": "2"})).await;
    case.recovers(from, "WaitingForGPU").await;
    remove("g-a10");
}

const CATALOGUE: [&str; 2] = ["configmap", "vlm-operator-gpu-types"];

/// Replaces the catalogue's text.
fn write_catalogue(text: &str) {
    let patch = json!({"data": {"gpu-types.yaml": text}}).to_string();
    kubectl(&["patch", CATALOGUE[0], CATALOGUE[1], "-n", SYSTEM, "--type=merge", "-p", &patch]).unwrap();
}

/// The catalogue with a type of our own at a price.
fn with_ours(shipped: &str, usd: f64) -> String {
    format!(
        "{shipped}\nours:\n  memoryBytes: 25769803776\n  computeCapability: '8.6'\n  resource: example.com/gpu\n  \
         nodes: [{{example.com/gpu-kind: [ours]}}]\n  \
         tolerations: [{{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}}]\n  \
         price: {{usdPerHour: {usd}, source: us}}\n"
    )
}

/// How many catalogues of either operator pod could not be used, by Prometheus' page.
async fn refused_catalogues() -> u64 {
    let url = format!("http://{}:8080/metrics", service_ip("vlm-operator", SYSTEM));
    let mut most = 0;
    // The Service picks one of two pods; a few questions reach both or the same, each tells its own count.
    for _ in 0..4 {
        let page = reqwest::get(&url).await.unwrap().text().await.unwrap();
        let line =
            page.lines().find(|line| line.starts_with("vlm_operator_gpu_catalogue_reads_total{result=\"failed\"}"));
        most = most.max(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0));
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_catalogue_acts_at_once_and_a_broken_one_changes_nothing() {
    let _undisturbed = vlm_tests::cluster::OPERATOR.read().await;
    let space = Space::with_model("t-gpu-edit").await;
    let catalogue = get(CATALOGUE[0], CATALOGUE[1], SYSTEM).unwrap();
    let shipped = catalogue["data"]["gpu-types.yaml"].as_str().unwrap();
    gpu_node("g-ours", &json!({"example.com/gpu-kind": "ours"}), &json!({"example.com/gpu": "1"})).await;
    let watch = Watch::start(&space.name, "tiny-llava").await;
    space.apply(&on("ours")).unwrap();
    watch.until_ready_is("False", "GPUTypeUnknown", 0, 30).await;
    let (from, begun) = (watch.len(), Instant::now());
    write_catalogue(&with_ours(shipped, 1.25));
    let known = |seen: &Seen| condition(&seen.object, "Ready")["reason"] != "GPUTypeUnknown";
    let seen = watch.until("the new type is known", from, 30, known).await;
    println!("a new type acts after {:?}", seen.at.duration_since(begun));
    assert!(seen.at.duration_since(begun) < SOON);
    watch.until_ready_is("True", "", from, 60).await;
    let running = pods(&space);
    assert_eq!(running[0][2], "g-ours");
    let (from, failed) = (watch.len(), refused_catalogues().await);
    write_catalogue("nvidia-l4: {memoryBytes: 1}");
    await_that("the broken catalogue is counted", 10, || async {
        let now = refused_catalogues().await;
        if now > failed { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    write_catalogue(&with_ours(shipped, 3.5));
    let dearer = |seen: &Seen| seen.object["status"]["cost"]["perHour"] == "3.50";
    watch.until("the new price", from, 30, dearer).await;
    let states = watch.all();
    let lost = states.iter().skip(from).find(|seen| condition(&seen.object, "Ready")["status"] != "True");
    assert!(lost.is_none(), "a broken catalogue or a price has touched the model: {lost:?}");
    assert_eq!(pods(&space), running, "a price restarts nothing");
    let from = watch.len();
    write_catalogue(shipped);
    let seen = watch.until_ready_is("False", "GPUTypeUnknown", from, 30).await;
    assert_eq!(condition(&seen.object, "Available")["status"], "True");
    assert_eq!(pods(&space), running);
    space.close();
    remove("g-ours");
}

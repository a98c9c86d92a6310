//! Each reason provoked for real on the real node: the right word, one Event, and a clean recovery
//! once the cause is gone. What is only valid in form ends as a condition within two seconds.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use vlm_tests::cluster::{apply, await_that};
use vlm_tests::impossible;
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;
use vlm_tests::tools::run;
use vlm_tests::watch::Watch;

/// Runs all at the same time, so that the whole takes as long as the slowest.
async fn all_of(cases: Vec<tokio::task::JoinHandle<()>>) {
    let results = futures::future::join_all(cases).await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert!(failed == 0, "{failed} provocations failed; each has said why above");
}

/// A spec whose pods have these fields besides small resources.
fn pod(fields: &Value) -> Value {
    let mut pod = json!({"resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"memory": "512Mi"}}});
    for (name, value) in fields.as_object().unwrap() {
        pod[name] = value.clone();
    }
    json!({"replicas": 1, "pod": pod})
}

fn limits(limits: &Value) -> Value {
    pod(&json!({"resources": {"requests": {"cpu": "20m", "memory": "8Mi"}, "limits": limits}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_ails_a_container_is_told_and_forgotten_when_it_is_mended() {
    let good = pod(&json!({}));
    let edits: [(&str, &str, Value, bool, &[&str]); 4] = [
        // The runtime's async library refuses to start so: a panic with an exit code of no table.
        (
            "p-crash",
            "ContainerCrashLoopBackOff",
            pod(&json!({"env": [{"name": "TOKIO_WORKER_THREADS", "value": "0"}]})),
            false,
            &["container server", "exit code 101", "TOKIO_WORKER_THREADS"],
        ),
        (
            "p-config",
            "ContainerConfigError",
            pod(&json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "nope", "key": "k"}}}]})),
            false,
            &["nope", "container server"],
        ),
        (
            "p-nowhere",
            "Unschedulable",
            pod(&json!({"nodeSelector": {"no": "such-node"}})),
            false,
            &["0/", "available", "pod tiny-llava-"],
        ),
        ("p-priority", "PodRefused", pod(&json!({"priorityClassName": "nope"})), false, &["nope"]),
    ];
    let edits = edits.map(|(name, reason, bad, stalled, words)| {
        let (good, words) = (good.clone(), words.to_vec());
        tokio::spawn(async move {
            let case = Provoked::with_model(name).await;
            case.fails(&bad, reason, stalled, &words).await;
            // Kubernetes keeps times in seconds: what comes in the same one cannot be told apart.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let from = case.watch.len();
            case.space.apply(&good).unwrap();
            case.recovers(from, reason).await;
        })
    });
    let arguments = tokio::spawn(async move {
        let case = Provoked::with_model("p-arguments").await;
        let mut bad = pod(&json!({}));
        bad["context"] = json!({"maxTokens": 1_000_000});
        case.fails(&bad, "InvalidArguments", true, &["context.maxTokens is 1000000", "at most 1024"]).await;
        let from = case.watch.len();
        case.space.apply(&pod(&json!({}))).unwrap();
        case.recovers(from, "InvalidArguments").await;
    });
    let killed = tokio::spawn(async move {
        let case = Provoked::with_model("p-oom").await;
        // A limit that nobody has written into the object, so that nobody can tell that it is too small.
        apply(
            "apiVersion: v1\nkind: LimitRange\nmetadata: {name: small, namespace: p-oom}\n\
             spec: {limits: [{type: Container, default: {memory: 16Mi}}]}",
        )
        .unwrap();
        let words = ["spec.pod.resources.limits.memory", "exit code 137"];
        case.fails(&limits(&json!({"cpu": "1"})), "ContainerOOMKilled", false, &words).await;
        let from = case.watch.len();
        case.space.apply(&pod(&json!({}))).unwrap();
        case.recovers(from, "ContainerOOMKilled").await;
    });
    all_of(edits.into_iter().chain([arguments, killed]).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_befalls_a_running_pod_is_told_and_forgotten_when_it_is_over() {
    let evicted = tokio::spawn(async {
        let case = Provoked::with_model("p-evicted").await;
        // The container's log is longer than this: the kubelet evicts the pod for it.
        let tight = limits(&json!({"memory": "512Mi", "ephemeral-storage": "512"}));
        case.fails(&tight, "PodEvicted", false, &["ephemeral", "pod tiny-llava-"]).await;
        let from = case.watch.len();
        case.space.apply(&pod(&json!({}))).unwrap();
        case.recovers(from, "PodEvicted").await;
    });
    let frozen = tokio::spawn(async {
        let case = Provoked::with_model("p-frozen").await;
        case.space.apply(&pod(&json!({}))).unwrap();
        case.watch.until_ready_is("True", "", 0, 90).await;
        // A moment apart, so that the second in which it was ready is not that in which it started.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pid = server_of(&case.space).await;
        let from = case.watch.len();
        run(Command::new("kill").args(["-STOP", &pid])).unwrap();
        case.told(from, "ProbeFailed", false, &["readiness probe", "container server"]).await;
        let from = case.watch.len();
        run(Command::new("kill").args(["-CONT", &pid])).unwrap();
        case.recovers(from, "ProbeFailed").await;
    });
    all_of(vec![evicted, frozen]).await;
}

/// The process of the space's one server, found by the pod's uid in its cgroup.
async fn server_of(space: &Space) -> String {
    let uid = space.pods()[0]["metadata"]["uid"].as_str().unwrap().to_owned();
    await_that("the server's process", 10, || async {
        for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            if read("comm").starts_with("vlm-runtime") && read("cgroup").contains(&uid) {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Err(format!("no vlm-runtime in a cgroup of pod {uid}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_valid_and_impossible_is_a_condition_until_it_is_mended() {
    let cases = impossible::ALL.map(|impossible| {
        tokio::spawn(async move {
            let case = impossible.case("i").await;
            let took = impossible.told(&case).await;
            // Not asserted: the machine runs all other tests meanwhile. The campaign `latency` measures.
            println!("{} after {took:?}", impossible.reason);
            let from = case.watch.len();
            (impossible.mend)(&case.space);
            case.recovers(from, impossible.reason).await;
        })
    });
    all_of(cases.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn broken_models_delay_no_other() {
    let space = Space::with_model("t-broken").await;
    vlm_tests::made_up::node().await;
    let models = vlm_tests::watch::models(&space.name).await;
    let create = |name: String, spec: Value| {
        let (models, manifest) = (models.clone(), vlm_tests::made_up::manifest(&space, &name, &spec, false));
        async move {
            let object = serde_json::from_value(manifest).unwrap();
            models.create(&kube::api::PostParams::default(), &object).await.unwrap();
        }
    };
    let over = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
    let refused = (0..20).map(|i| create(format!("refused-{i}"), json!({"pod": {"resources": over}})));
    let homeless = (0..20).map(|i| create(format!("homeless-{i}"), json!({"model": {"uri": "pvc://nope/x"}})));
    futures::future::join_all(refused).await;
    futures::future::join_all(homeless).await;
    await_that("all broken ones are told", 60, || async {
        let all = models.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let told = |object: &&kube::api::DynamicObject| {
            let conditions = object.data["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Stalled" && c["status"] == "True")
        };
        let told = all.iter().filter(told).count();
        if told == 40 { Ok(()) } else { Err(format!("{told} of 40")) }
    })
    .await;
    let watch = Watch::start(&space.name, "healthy").await;
    let begun = std::time::Instant::now();
    create("healthy".to_owned(), json!({"replicas": 1})).await;
    let seen = watch.until_ready_is("False", "Deploying", 0, 30).await;
    println!("looked at after {:?}", seen.at.duration_since(begun));
    // Far below what forty failures one after another would take; the figure itself is printed.
    assert!(seen.at.duration_since(begun) < Duration::from_secs(10), "{:?}", seen.at.duration_since(begun));
    watch.until_ready_is("True", "", 0, 30).await;
    // What nobody mends is not tried again and again.
    let window = vlm_tests::idle::Window::after_settling(&space, 5).await;
    let tries = vlm_tests::idle::writes(&window, |e| e["objectRef"]["namespace"] == space.name.as_str());
    assert!(tries.len() <= 20, "{} writes in five seconds: {tries:#?}", tries.len());
    space.close();
}

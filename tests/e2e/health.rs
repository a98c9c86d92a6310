//! What `GitOps` tools see over a whole life: every state that a watch tells, by the rules of kstatus
//! and by the expressions that are shipped for Argo CD and Flux, run with those tools' own engines.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vlm_tests::cluster::kubectl;
use vlm_tests::kstatus::{Health, health, path, violations};
use vlm_tests::made_up::{manifest, node, pod_of};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;
use vlm_tests::tools::{root, tool};
use vlm_tests::watch::Watch;

/// What Argo CD and Flux say of each object.
fn judged(objects: &[Value]) -> Vec<Value> {
    let folder = root().join("docs/gitops");
    let mut child = Command::new(tool("gitops-health"))
        .args([folder.join("argocd-health.lua"), folder.join("flux-health.yaml")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Holds a history against kstatus and both tools; returns its path of healths.
fn check(watch: &Watch) -> Vec<Health> {
    let (gone, states): (Vec<_>, Vec<_>) = watch.all().into_iter().partition(|seen| seen.deleted);
    assert!(gone.len() <= 1);
    let states: Vec<_> = states.into_iter().map(|seen| seen.object).collect();
    let wrong = violations(&states);
    assert!(wrong.is_empty(), "{}\n{states:#?}", wrong.join("\n"));
    for (object, said) in states.iter().zip(judged(&states)) {
        let (argo, flux) = match health(object) {
            Health::InProgress => ("Progressing", "InProgress"),
            Health::Failed => ("Degraded", "Failed"),
            Health::Current => ("Healthy", "Current"),
            // Both tools look at the deletion themselves.
            Health::Terminating => continue,
        };
        assert_eq!((said["argo"].as_str(), said["flux"].as_str()), (Some(argo), Some(flux)), "{said} of {object}");
        assert!(said["message"].as_str().is_some_and(|m| m.len() > 10), "{said}");
    }
    println!("{} states, {:?}", states.len(), path(&states));
    path(&states)
}

/// Waits until tools take the spec as it is now for done. States of an earlier spec may still arrive.
async fn current(space: &Space, watch: &Watch, from: usize) {
    let generation = space.model()["metadata"]["generation"].clone();
    let done = |seen: &vlm_tests::watch::Seen| {
        seen.object["metadata"]["generation"] == generation && health(&seen.object) == Health::Current
    };
    watch.until("Current", from, 90, done).await;
}

#[tokio::test]
async fn tools_see_the_truth_from_creation_to_deletion() {
    let space = Space::with_model("t-health").await;
    let watch = Watch::start(&space.name, "tiny-llava").await;
    space.apply(&json!({})).unwrap();
    let wait = ["wait", "visionmodel/tiny-llava", "-n", &space.name, "--for=condition=Ready", "--timeout=90s"];
    kubectl(&wait).unwrap();
    current(&space, &watch, 0).await;

    // An edit that rolls out, and one that touches no pod.
    let from = watch.len();
    space.apply(&json!({"context": {"maxConcurrency": 4}})).unwrap();
    current(&space, &watch, from).await;
    let from = watch.len();
    space.apply(&json!({"context": {"maxConcurrency": 4}, "rollout": {"progressDeadlineSeconds": 900}})).unwrap();
    current(&space, &watch, from).await;
    assert_eq!(check(&watch), [Health::InProgress, Health::Current].repeat(3));

    // A failure that only a person can mend, and the mend.
    let from = watch.len();
    space.apply(&json!({"model": {"uri": "pvc://tiny-llava/elsewhere"}})).unwrap();
    watch.until_ready_is("False", "ModelNotFound", from, 60).await;
    let from = watch.len();
    space.apply(&json!({})).unwrap();
    current(&space, &watch, from).await;
    kubectl(&["delete", "visionmodel", "tiny-llava", "-n", &space.name, "--timeout=60s"]).unwrap();
    watch.until("the deletion", from, 30, |seen| seen.deleted).await;

    let path = check(&watch);
    let expected = [
        [Health::InProgress, Health::Current].repeat(3),
        vec![Health::InProgress, Health::Failed, Health::InProgress, Health::Current],
    ]
    .concat();
    let without_end: Vec<_> = path.into_iter().filter(|h| *h != Health::Terminating).collect();
    assert_eq!(without_end, expected);
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_without_progress_fails_at_its_deadline_and_not_before() {
    let case = Provoked::with_model("t-deadline").await;
    node().await;
    let (space, watch) = (&case.space, &case.watch);
    let spec = json!({"replicas": 1, "rollout": {"progressDeadlineSeconds": 10}});
    let begun = std::time::Instant::now();
    vlm_tests::cluster::apply(&manifest(space, "tiny-llava", &spec, true).to_string()).unwrap();
    let words = ["10 seconds of rollout.progressDeadlineSeconds"];
    let stuck = case.told(0, "RolloutStuck", true, &words).await;
    assert!(stuck.at.duration_since(begun).as_secs() >= 9, "{:?}", stuck.at.duration_since(begun));
    assert_eq!(health(&stuck.object), Health::Failed);

    // The operator goes on trying: when the pod comes up after all, everything is well.
    let from = watch.len();
    let pod = pod_of(space, "tiny-llava").await.metadata.name.unwrap();
    kubectl(&["annotate", "pod", &pod, "-n", &space.name, "hold-"]).unwrap();
    case.recovered(from, "RolloutStuck").await;
    assert_eq!(check(watch), [Health::InProgress, Health::Failed, Health::Current]);
    case.space.close();
}

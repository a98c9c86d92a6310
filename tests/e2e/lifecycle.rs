//! From the first manifest to nothing left.

use std::process::Command;

use serde_json::json;
use vlm_tests::cluster::{await_that, get, kubectl};
use vlm_tests::space::Space;
use vlm_tests::tools::{cache, run};

#[tokio::test]
async fn a_job_fills_the_volume_and_the_model_becomes_ready() {
    let space = Space::empty("t-job").await;
    run(Command::new("chmod").arg("0777").arg(space.volume())).unwrap();
    space.add_claim();
    let all = std::fs::read_to_string(vlm_tests::tools::root().join("examples/tiny-llava-weights.yaml")).unwrap();
    let job = vlm_tests::tools::documents(&all).into_iter().find(|d| d["kind"] == "Job").unwrap();
    let mut job = job;
    job["metadata"]["namespace"] = json!(space.name);
    vlm_tests::cluster::apply(&job.to_string()).unwrap();
    kubectl(&["wait", "job/tiny-llava-weights", "-n", &space.name, "--for=condition=complete", "--timeout=60s"])
        .unwrap();
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let columns = kubectl(&["get", "visionmodels", "-n", &space.name]).unwrap();
    assert!(columns.contains("READY") && columns.contains("1/1"), "{columns}");
    space.close();
}

#[tokio::test]
async fn deleting_the_model_leaves_nothing() {
    let space = Space::with_model("t-delete").await;
    let kinds = "deployments,replicasets,pods,services,endpointslices,poddisruptionbudgets,configmaps,secrets,\
                 serviceaccounts,roles,rolebindings,jobs,leases,controllerrevisions";
    let inventory = || kubectl(&["get", kinds, "-n", &space.name, "-o", "name"]).unwrap();
    await_that("the namespace's own objects", 30, || async {
        let found = inventory();
        let complete = found.contains("configmap/kube-root-ca.crt") && found.contains("serviceaccount/default");
        if complete { Ok(()) } else { Err(found) }
    })
    .await;
    let before = inventory();
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    for kind in ["deployment", "service", "poddisruptionbudget"] {
        assert!(get(kind, "tiny-llava", &space.name).is_some(), "no {kind}");
    }
    kubectl(&["delete", "visionmodel", "tiny-llava", "-n", &space.name, "--timeout=60s"]).unwrap();
    await_that("nothing is left", 60, || async {
        let now = inventory();
        if now == before { Ok(()) } else { Err(now) }
    })
    .await;
    space.close();
}

#[tokio::test]
async fn a_child_changed_by_hand_is_put_right() {
    let space = Space::with_model("t-drift").await;
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let name = &space.name;
    kubectl(&[
        "patch",
        "service",
        "tiny-llava",
        "-n",
        name,
        "--type=merge",
        "-p",
        r#"{"spec":{"selector":{"x":"y"}}}"#,
    ])
    .unwrap();
    kubectl(&["delete", "poddisruptionbudget", "tiny-llava", "-n", name]).unwrap();
    kubectl(&["scale", "deployment", "tiny-llava", "-n", name, "--replicas=3"]).unwrap();
    await_that("all three are put right", 30, || async {
        let service = get("service", "tiny-llava", name).unwrap();
        let right = service["spec"]["selector"]["vlm-operator.dev/model"] == "tiny-llava"
            && get("poddisruptionbudget", "tiny-llava", name).is_some()
            && space.written_replicas() == 1;
        if right { Ok(()) } else { Err(format!("{}, {} replicas", service["spec"], space.written_replicas())) }
    })
    .await;
    space.close();
}

#[tokio::test]
async fn the_operator_s_metrics_are_well_formed() {
    let _undisturbed = vlm_tests::cluster::OPERATOR.read().await;
    let space = Space::with_model("t-metrics").await;
    space.apply(&json!({})).unwrap();
    space.await_ready().await;
    let operator = vlm_tests::cluster::service_ip("vlm-operator", vlm_tests::cluster::SYSTEM);
    let pods = vlm_tests::cluster::list("pods", vlm_tests::cluster::SYSTEM, "app.kubernetes.io/name=vlm-operator");
    let mut texts = vec![reqwest::get(space.address() + "/metrics").await.unwrap().text().await.unwrap()];
    // Every pod: only the leader has counted anything.
    for ip in pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()) {
        texts.push(reqwest::get(format!("http://{ip}:8080/metrics")).await.unwrap().text().await.unwrap());
    }
    assert!(texts.iter().any(|text| text.contains("vlm_operator_reconciles_total{")), "{texts:#?}");
    let targets: serde_json::Value =
        reqwest::get(format!("http://{operator}:8080/prometheus/targets")).await.unwrap().json().await.unwrap();
    let mine = targets.as_array().unwrap().iter().filter(|t| t["labels"]["namespace"] == space.name.as_str());
    assert_eq!(mine.count(), 1, "{targets}");
    // The names of vLLM break the rules, as there.
    let ours = |text: &String| {
        text.lines().filter(|line| !line.contains("vllm:")).fold(String::new(), |all, line| all + line + "\n")
    };
    for text in texts.iter().map(ours) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let input = std::fs::File::open(file.path()).unwrap();
        let lint = run(Command::new(cache().join("debian/prometheus/usr/bin/promtool"))
            .args(["check", "metrics"])
            .stdin(input));
        assert!(lint.is_ok(), "{lint:?}");
    }
    space.close();
}

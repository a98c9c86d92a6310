//! `status` and `logs` against an API server's answers: what is asked for, and what is said when it is not there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use clap::Parser;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kubectl_vlm::args::{Cli, Command, LogsArgs};
use kubectl_vlm::cluster::Cluster;
use kubectl_vlm::{logs, status};
use serde_json::{Value, json};
use tower::service_fn;

type Asked = Arc<Mutex<Vec<String>>>;

/// A cluster whose API server gives what `answer` has for a path and its query, and the list of what it was asked for.
fn cluster(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> (Cluster, Asked) {
    let (asked, answer) = (Asked::default(), Arc::new(answer));
    let seen = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            let path = request.uri().to_string();
            let (code, body) = answer(&path);
            seen.lock().unwrap().push(path);
            let response = Response::builder().status(code).body(Body::from(body.into_bytes()));
            Ok::<_, std::convert::Infallible>(response.unwrap())
        }
    });
    (Cluster { client: Client::new(service, "default"), namespace: "vision".to_owned() }, asked)
}

fn model(status: &Value) -> String {
    json!({
        "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
        "metadata": {"name": "llava", "namespace": "vision", "generation": 1},
        "spec": {"model": {"uri": "pvc://weights/llava"}}, "status": status,
    })
    .to_string()
}

fn not_found() -> (u16, String) {
    (
        404,
        json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404}).to_string(),
    )
}

fn pods(names: &[&str]) -> String {
    let pod = |name: &&str| json!({"metadata": {"name": name}, "spec": {"initContainers": [{"name": "fetch"}], "containers": [{"name": "server"}]}});
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": names.iter().map(pod).collect::<Vec<_>>()})
        .to_string()
}

fn logs_args(more: &[&str]) -> LogsArgs {
    match Cli::try_parse_from(["kubectl-vlm", "logs", "llava"].iter().chain(more)).unwrap().command {
        Command::Logs(args) => args,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_status_of_a_model_is_told() {
    let status_of = json!({"observedGeneration": 1, "endpoint": "http://llava", "conditions": [{
        "type": "Ready", "status": "True", "reason": "Serving", "message": "all answer",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let (cluster, asked) = cluster(move |_| (200, model(&status_of)));
    let text = status::run(&cluster, "llava").await.unwrap();
    assert!(text.starts_with("llava in vision: ready\n") && text.contains("all answer"), "{text}");
    assert_eq!(*asked.lock().unwrap(), ["/apis/vlm-operator.dev/v1alpha1/namespaces/vision/visionmodels/llava"]);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_said_to_be_missing_with_its_namespace() {
    let (cluster, _) = cluster(|_| not_found());
    let error = status::run(&cluster, "llava").await.unwrap_err().to_string();
    assert!(error.contains("no VisionModel llava in the namespace vision"), "{error}");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_with_its_words() {
    let forbidden =
        json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "you may not", "code": 403});
    let (cluster, _) = cluster(move |_| (403, forbidden.to_string()));
    let error = format!("{:#}", status::run(&cluster, "llava").await.unwrap_err());
    assert!(error.contains("cannot ask for the VisionModel llava") && error.contains("you may not"), "{error}");
}

#[tokio::test]
async fn logs_of_all_pods_come_behind_their_names_and_one_without_a_log_stops_none() {
    let (cluster, asked) = cluster(|path| {
        match path {
        path if path.contains("/visionmodels/") => (200, model(&json!({"selector": "vlm-operator.dev/model=llava"}))),
        path if path.contains("/log?") && path.contains("/a/") && path.contains("container=server") => (200, "one\ntwo\n".to_owned()),
        path if path.contains("/log?") && path.contains("/b/") && path.contains("container=server") => (200, "three".to_owned()),
        path if path.contains("/log?") => (400, json!({"kind": "Status", "status": "Failure", "reason": "BadRequest", "message": "it has not started", "code": 400}).to_string()),
        _ => (200, pods(&["a", "b"])),
    }
    });
    let mut out = Vec::new();
    logs::run(&cluster, &logs_args(&["--tail", "7", "--previous"]), &mut out).await.unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&out).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines[2..], ["a server | one", "a server | two", "b server | three"], "{lines:?}");
    assert!(
        lines[..2].iter().all(|line| line.starts_with("# cannot read") && line.contains("not started")),
        "{lines:?}"
    );
    let asked = asked.lock().unwrap();
    assert!(asked.iter().any(|path| path.contains("labelSelector=vlm-operator.dev%2Fmodel%3Dllava")), "{asked:?}");
    let logs: Vec<_> = asked.iter().filter(|path| path.contains("/log?")).collect();
    assert!(
        logs.len() == 4 && logs.iter().all(|path| path.contains("tailLines=7") && path.contains("previous=true")),
        "{logs:?}"
    );
}

#[tokio::test]
async fn a_model_without_pods_points_to_its_status() {
    let selected = |with: bool| {
        move |path: &str| {
            let status = if with { json!({"selector": "a=b"}) } else { json!({}) };
            (200, if path.contains("/visionmodels/") { model(&status) } else { pods(&[]) })
        }
    };
    let (with, _) = cluster(selected(true));
    let error = logs::run(&with, &logs_args(&[]), &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("has no pods") && error.contains("kubectl vlm status llava"), "{error}");
    let (without, _) = cluster(selected(false));
    let error = logs::run(&without, &logs_args(&[]), &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("not looked at llava yet"), "{error}");
}

//! Servers that run and do not answer, and pods that their node gave up.

use super::failing::failing;
use super::*;

/// A pod whose server runs since `started` and is not ready since `unready`.
fn running(started: &str, unready: &str) -> Value {
    let mut pod = pod("p1", &json!({"running": {"startedAt": started}}), &json!({}), 0);
    pod["status"]["containerStatuses"][0]["started"] = json!(true);
    pod["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": unready}]);
    pod
}

fn evicted(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {labels::TEMPLATE: TEMPLATE}},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            "containerStatuses": [{"name": "server", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}]},
    })
}

#[test]
fn a_server_that_was_ready_and_is_silent_fails_its_probe() {
    let scene = failing(&[running("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z")]);
    assert_eq!(scene.ready(), ("False", "ProbeFailed"));
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
    assert_eq!(scene.status.failures[0].container.as_deref(), Some("server"));
}

#[test]
fn a_server_that_still_loads_fails_nothing() {
    for unready in ["2025-12-31T23:59:58Z", "2026-01-01T00:00:00Z"] {
        let scene = failing(&[running("2026-01-01T00:00:00Z", unready)]);
        assert_eq!(scene.ready(), ("False", reasons::DEPLOYING), "{unready}");
    }
}

#[test]
fn a_server_that_was_stopped_from_outside_failed_a_probe_and_did_not_crash() {
    for code in [0, 137, 143] {
        let scene = failing(&[pod("p1", &json!({"running": {}}), &ended(code, ""), 1)]);
        assert_eq!(scene.ready(), ("False", "ProbeFailed"), "{code}");
    }
    let scene = failing(&[pod("p1", &json!({"running": {}}), &ended(139, ""), 1)]);
    assert_eq!(scene.ready(), ("False", "ContainerCrashLoopBackOff"));
}

#[test]
fn an_init_container_is_read_too_and_has_no_probes() {
    let mut pod = pod("p1", &waiting("PodInitializing", ""), &json!({}), 0);
    pod["status"]["initContainerStatuses"] = json!([{
        "name": "fetch", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
        "state": waiting("CrashLoopBackOff", ""), "lastState": ended(137, ""),
    }]);
    let scene = failing(&[pod]);
    assert_eq!(scene.ready(), ("False", "ContainerCrashLoopBackOff"));
    assert_eq!(scene.status.failures[0].container.as_deref(), Some("fetch"));
}

#[test]
fn an_evicted_pod_is_told_with_the_nodes_words_and_not_with_its_containers_end() {
    let scene = failing(&[evicted("p1")]);
    assert_eq!(scene.ready(), ("False", "PodEvicted"));
    assert!(scene.condition(READY).message.starts_with("The node was low on resource: memory. (pod p1)"));
}

#[test]
fn the_record_of_an_evicted_pod_is_no_failure_once_another_answers() {
    let mut scene = failing(&[evicted("p1")]);
    scene.deployed(1, 1, 1);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
    assert!(scene.status.failures.is_empty());
}

#[test]
fn a_pod_is_no_failure_once_its_deployment_counts_it_as_ready() {
    let mut scene = failing(&[running("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z")]);
    // The watch of the Deployment is ahead of that of its pods.
    scene.deployed(1, 1, 1);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
    assert!(scene.status.failures.is_empty(), "{:?}", scene.status.failures);
}

/// A pod whose server is ready, and of which a gateway has told so much.
fn gated(told: &str, message: &str) -> Value {
    let mut pod = pod("p1", &json!({"running": {}}), &json!({}), 0);
    pod["spec"] = json!({"containers": [], "readinessGates": [{"conditionType": "vlm-operator.dev/routable"}]});
    pod["status"]["containerStatuses"][0]["ready"] = json!(true);
    pod["status"]["conditions"] = json!([
        {"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"},
        {"type": "vlm-operator.dev/routable", "status": told, "message": message}]);
    pod
}

#[test]
fn a_server_that_no_gateway_reaches_is_told_with_the_gateways_words() {
    let scene = failing(&[gated("False", "the server answered a picture with 500: own words")]);
    assert_eq!(scene.ready(), ("False", "NotRoutable"));
    assert!(scene.condition(READY).message.contains("with 500: own words (pod p1)"), "{:?}", scene.condition(READY));
    let scene = failing(&[gated("Unknown", "no gateway takes requests")]);
    assert_eq!(scene.ready(), ("False", "GatewayUnreachable"));
    assert_eq!((scene.says(STALLED), scene.says(RECONCILING).0), (("False", reasons::SETTLED), "True"));
    let scene = failing(&[gated("True", "it answered")]);
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING), "it is about to be ready");
}
